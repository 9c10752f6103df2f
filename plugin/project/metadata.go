package project

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/plugin/lock"

	version "github.com/aquasecurity/go-pep440-version"
)

// distInfo returns the files of the project's *.dist-info directory, by path, as an installer would have written them
// (PEP 427, core metadata 2.1), so that importlib.metadata knows the project. There is no RECORD: it would list files
// that are not where an installer puts them.
func (d *description) distInfo() map[string][]byte {
	if d.Name == "" {
		return nil
	}
	v, err := version.Parse(strings.TrimSpace(d.Version))
	if err != nil {
		d.warnf("%s has the version %q, which is none (PEP 440); importlib.metadata will say %s", d.Name, d.Version, unknownVersion)
		v = version.MustParse(unknownVersion)
	}
	dir := fmt.Sprintf("%s-%s.dist-info/", strings.ReplaceAll(lock.NormalizeName(d.Name), "-", "_"), v.String())
	files := map[string][]byte{
		dir + "METADATA":  d.coreMetadata(v.String()),
		dir + "INSTALLER": []byte("pexpress\n"),
	}
	if len(d.EntryPoints) > 0 {
		files[dir+"entry_points.txt"] = d.entryPointsFile()
	}
	return files
}

func (d *description) coreMetadata(version string) []byte {
	var b strings.Builder
	field := func(name, value string) {
		if value = strings.Join(strings.Fields(value), " "); value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	field("Metadata-Version", "2.1")
	field("Name", d.Name)
	field("Version", version)
	field("Summary", d.Summary)
	field("Requires-Python", d.RequiresPython)
	for _, r := range d.Requires {
		field("Requires-Dist", r.dist(""))
	}
	for _, extra := range slices.Sorted(maps.Keys(d.Extras)) {
		field("Provides-Extra", extra)
		for _, r := range d.Extras[extra] {
			field("Requires-Dist", r.dist(extra))
		}
	}
	return []byte(b.String())
}

// dist returns the requirement as metadata has it. A local path is left away: it means nothing on another host.
func (r *requirement) dist(extra string) string {
	s := r.name
	if len(r.extras) > 0 {
		s += "[" + strings.Join(r.extras, ",") + "]"
	}
	s += r.spec
	if _, local := r.localPath("/"); r.url != "" && !local {
		s += " @ " + r.url + " "
	}
	var markers []string
	if r.marker != "" && r.marker != conditional {
		markers = append(markers, r.marker)
	}
	if extra != "" {
		if len(markers) > 0 {
			markers[0] = "(" + markers[0] + ")"
		}
		markers = append(markers, fmt.Sprintf("extra == %q", extra))
	}
	if len(markers) > 0 {
		s += "; " + strings.Join(markers, " and ")
	}
	return s
}

func (d *description) entryPointsFile() []byte {
	var b strings.Builder
	for _, group := range slices.Sorted(maps.Keys(d.EntryPoints)) {
		fmt.Fprintf(&b, "[%s]\n", group)
		for _, name := range slices.Sorted(maps.Keys(d.EntryPoints[group])) {
			fmt.Fprintf(&b, "%s = %s\n", name, d.EntryPoints[group][name])
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}
