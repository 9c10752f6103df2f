package project

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/plugin/lock"
)

// A requirement is one dependency specifier (PEP 508), or one line of a requirements file.
type requirement struct {
	name   string // normalized; empty for a bare path
	extras []string
	spec   string // version specifiers, "" for any
	url    string // direct reference: a URL or a path
	marker string
	text   string // as written
}

var requirementForm = lazy.Regexp(`^([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?\s*(.*)$`)

func parseRequirement(s string) (requirement, error) {
	r := requirement{text: strings.TrimSpace(s)}
	m := requirementForm().FindStringSubmatch(r.text)
	if m == nil {
		return r, fmt.Errorf("%q is not a requirement (PEP 508)", s)
	}
	r.name = lock.NormalizeName(m[1])
	r.extras = splitList(m[2])
	rest := strings.TrimSpace(m[3])
	if url, ok := strings.CutPrefix(rest, "@"); ok {
		r.url, r.marker, _ = strings.Cut(strings.TrimSpace(url), " ;")
		r.url, r.marker = strings.TrimSpace(r.url), strings.TrimSpace(r.marker)
		return r, nil
	}
	r.spec, r.marker, _ = strings.Cut(rest, ";")
	r.spec = strings.TrimSpace(strings.Trim(strings.TrimSpace(r.spec), "()"))
	r.marker = strings.TrimSpace(r.marker)
	if r.spec != "" && !strings.ContainsRune("<>=!~", rune(r.spec[0])) {
		return r, fmt.Errorf("%q is not a requirement (PEP 508)", s)
	}
	return r, nil
}

// parseRequirements parses those of the items that can be; the rest are returned as warnings.
func parseRequirements(where string, items []string) (reqs []requirement, warnings []string) {
	for _, item := range items {
		r, err := parseRequirement(item)
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("%s: %v", where, err))
			continue
		}
		reqs = append(reqs, r)
	}
	return reqs, warnings
}

// splitList splits at commas and line ends.
func splitList(s string) []string {
	var out []string
	for _, part := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == '\n' }) {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// splitLines splits at line ends and drops empty lines and comments.
func splitLines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}

// requirementsFile reads a requirements.txt and those that it includes. Paths in it are relative to dir, as they are
// to pip when it runs there. Constraints and options about indexes say nothing about what is required.
func requirementsFile(dir, name string, seen map[string]bool) ([]requirement, error) {
	file := filepath.Join(dir, name)
	if seen[file] {
		return nil, nil
	}
	seen[file] = true
	b, err := durable.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var reqs []requirement
	text := strings.ReplaceAll(strings.ReplaceAll(string(b), "\r\n", "\n"), "\\\n", " ")
	for line := range strings.Lines(text) {
		line = withoutComment(line)
		switch {
		case line == "":
			continue
		case strings.HasPrefix(line, "-r") || strings.HasPrefix(line, "--requirement"):
			included, err := requirementsFile(dir, filepath.Join(filepath.Dir(name), optionValue(line)), seen)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			reqs = append(reqs, included...)
			continue
		case strings.HasPrefix(line, "-e") || strings.HasPrefix(line, "--editable"):
			line = optionValue(line)
		case line[0] == '-':
			continue
		}
		line, _, _ = strings.Cut(line, " --") // per-requirement options, such as --hash
		r, err := parseRequirementLine(strings.TrimSpace(line))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		reqs = append(reqs, r)
	}
	return reqs, nil
}

// withoutComment cuts off a comment: what follows a # at the beginning or after a space. A URL's fragment is none.
func withoutComment(line string) string {
	for i := 0; i < len(line); i++ {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
		}
	}
	return strings.TrimSpace(line)
}

// optionValue returns the value of `-r value`, `-rvalue`, `--requirement value` or `--requirement=value`.
func optionValue(line string) string {
	if strings.HasPrefix(line, "--") {
		if i := strings.IndexAny(line, " ="); i >= 0 {
			return strings.TrimSpace(line[i+1:])
		}
		return ""
	}
	return strings.TrimSpace(line[2:])
}

var pathExtras = lazy.Regexp(`^(.*?)\[([^\]]*)\]$`)

// parseRequirementLine parses a requirement, or what pip also takes: a bare path or URL.
func parseRequirementLine(line string) (requirement, error) {
	isPath := line == "." || strings.HasPrefix(line, "./") || strings.HasPrefix(line, "../") || strings.HasPrefix(line, ".[") ||
		filepath.IsAbs(line) || strings.HasPrefix(line, "..")
	if !isPath && !strings.HasPrefix(line, "file:") && !strings.Contains(strings.SplitN(line, "@", 2)[0], "://") {
		return parseRequirement(line)
	}
	r := requirement{text: line}
	r.url, r.marker, _ = strings.Cut(line, ";")
	r.url, r.marker = strings.TrimSpace(r.url), strings.TrimSpace(r.marker)
	if m := pathExtras().FindStringSubmatch(r.url); m != nil {
		r.url, r.extras = m[1], splitList(m[2])
	}
	return r, nil
}

// localPath returns the directory below or beside dir that the direct reference names, if it names one.
func (r *requirement) localPath(dir string) (string, bool) {
	path := r.url
	if path == "" {
		return "", false
	}
	path, isFile := strings.CutPrefix(path, "file:")
	for _, root := range []string{"${PROJECT_ROOT}", "{root:uri}", "{root}"} {
		if _, after, ok := strings.Cut(path, root); ok {
			path, isFile = "."+after, true
		}
	}
	if isFile {
		path, _, _ = strings.Cut(path, "#")
		path = strings.TrimPrefix(strings.TrimPrefix(path, "//localhost"), "//")
	} else if strings.Contains(path, ":") {
		return "", false
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, filepath.FromSlash(path))
	}
	return filepath.Clean(path), true
}
