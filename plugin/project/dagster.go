package project

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/pexpress/pexpress/cache/durable"
)

// cloudFile is Dagster Cloud's description of a project's code locations.
const cloudFile = "dagster_cloud.yaml"

type cloudConfig struct {
	locations []Location
	warnings  []string
}

type cloudBuild struct {
	Directory string `yaml:"directory"`
}

type cloudLocation struct {
	Name             string            `yaml:"location_name"`
	CodeSource       map[string]string `yaml:"code_source"`
	Build            *cloudBuild       `yaml:"build"`
	WorkingDirectory string            `yaml:"working_directory"`
	Attribute        string            `yaml:"attribute"`
}

// readDagsterCloud reads dir's dagster_cloud.yaml, if there is one. What only matters to Dagster Cloud's own agents is
// left aside with a warning.
func readDagsterCloud(dir string) (cloudConfig, error) {
	var c cloudConfig
	b, err := durable.ReadFile(filepath.Join(dir, cloudFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	var doc struct {
		Defaults  yaml.Node   `yaml:"defaults"`
		Locations []yaml.Node `yaml:"locations"`
	}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return c, fmt.Errorf("%s: %w", cloudFile, err)
	}
	if len(doc.Locations) == 0 {
		return c, fmt.Errorf("%s has no locations; add one, for example:\n\n"+
			"    locations:\n      - location_name: my-project\n        code_source:\n          module_name: my_project.definitions", cloudFile)
	}
	for i := range doc.Locations {
		node := &doc.Locations[i]
		var l cloudLocation
		for _, n := range []*yaml.Node{&doc.Defaults, node} {
			if n.Kind == 0 {
				continue
			}
			if err := n.Decode(&l); err != nil {
				return c, fmt.Errorf("%s: %w", cloudFile, err)
			}
		}
		loc, err := l.location(dir)
		if err != nil {
			return c, fmt.Errorf("%s:%d: %w", cloudFile, node.Line, err)
		}
		if slices.ContainsFunc(c.locations, func(o Location) bool { return o.Name == loc.Name }) {
			return c, fmt.Errorf("%s:%d: the location %q is there twice", cloudFile, node.Line, loc.Name)
		}
		c.locations = append(c.locations, loc)
		c.warnings = append(c.warnings, ignoredKeys(node)...)
	}
	c.warnings = append(c.warnings, ignoredKeys(&doc.Defaults)...)
	return c, nil
}

// ignoredKeys names the keys of a location that have no meaning here.
func ignoredKeys(node *yaml.Node) []string {
	read := []string{"location_name", "code_source", "build", "working_directory", "attribute"}
	var warnings []string
	for i := 0; i+1 < len(node.Content) && node.Kind == yaml.MappingNode; i += 2 {
		if key := node.Content[i]; !slices.Contains(read, key.Value) {
			warnings = append(warnings, fmt.Sprintf("%s:%d: %s is ignored", cloudFile, key.Line, key.Value))
		}
	}
	return warnings
}

var codeSources = []struct{ key, flag string }{
	{"module_name", "-m"},
	{"package_name", "--package-name"},
	{"python_file", "-f"},
	{"autoload_defs_module_name", "--autoload-defs-module-name"},
}

// location makes a Location of what the file says. As Dagster Cloud does, the process starts in the build directory,
// and the working directory is a flag that only says where modules are looked for.
func (l *cloudLocation) location(dir string) (Location, error) {
	loc := Location{Name: l.Name, Dir: dir, Entry: Entry{Preset: "dagster"}}
	if !locationName().MatchString(l.Name) {
		return loc, fmt.Errorf("location_name %q is no name for a location: %s", l.Name, nameRule)
	}
	var valid, given []string
	for _, s := range codeSources {
		valid = append(valid, s.key)
		if v := l.CodeSource[s.key]; v != "" {
			given = append(given, s.key)
			loc.Entry.Args = append(loc.Entry.Args, s.flag, v)
		}
	}
	if len(given) != 1 {
		return loc, fmt.Errorf("location %q: code_source must have exactly one of %s", l.Name, strings.Join(valid, ", "))
	}
	for key := range l.CodeSource {
		if !slices.Contains(valid, key) {
			return loc, fmt.Errorf("location %q: code_source has no key %s; it has %s", l.Name, key, strings.Join(valid, ", "))
		}
	}
	if l.Attribute != "" {
		loc.Entry.Args = append(loc.Entry.Args, "-a", l.Attribute)
	}
	if l.Build != nil && l.Build.Directory != "" {
		loc.Dir = filepath.Join(dir, filepath.FromSlash(l.Build.Directory))
		if info, err := os.Stat(loc.Dir); !filepath.IsLocal(l.Build.Directory) || err != nil || !info.IsDir() {
			return loc, fmt.Errorf("location %q: build.directory %q is not a directory of the project", l.Name, l.Build.Directory)
		}
	}
	if wd := l.WorkingDirectory; wd != "" {
		if !filepath.IsLocal(wd) {
			return loc, fmt.Errorf("location %q: working_directory %q leaves the project", l.Name, wd)
		}
		if wd = filepath.ToSlash(filepath.Clean(wd)); wd != "." {
			loc.Entry.Args = append(loc.Entry.Args, "-d", wd)
		}
	}
	return loc, nil
}
