package zygote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// never are modules that no zygote imports, with why.
var never = map[string]string{
	"antigravity": "opens a browser when it is imported",
	"idlelib":     "its programs run when they are imported",
	"lib2to3":     "its programs read files of the working directory",
	"test":        "the interpreter's own tests, some of which run when they are imported",
	"this":        "prints when it is imported",
	"turtle":      "opens a window",
	"turtledemo":  "opens windows when it is imported",
}

// Learned is what is known of the start of versions of one Key: what hosts tell each other.
type Learned struct {
	// Modules are to be imported in a zygote, in this order.
	Modules []string `json:"modules"`
	// LeftOut are top-level packages that are not imported there, nor what imports them, with why.
	LeftOut map[string]string `json:"left_out,omitempty"`
}

// What an entry may hold. A real one of Dagster with pandas has 1,850 modules in 50 KB.
const (
	MaxLearned  = 1 << 20 // bytes
	maxModules  = 20_000
	maxName     = 200
	maxLeftOut  = 100
	maxReason   = 300
	maxSegments = 20
)

// ParseLearned reads an entry that another host has written. It can make a zygote import what the dependencies and the
// interpreter's library hold, and nothing else: names are no more than names.
func ParseLearned(b []byte) (*Learned, error) {
	if len(b) > MaxLearned {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(b), MaxLearned)
	}
	l := &Learned{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(l); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("there is something after its end")
	}
	if len(l.Modules) > maxModules || len(l.LeftOut) > maxLeftOut {
		return nil, fmt.Errorf("it names %d modules and leaves out %d packages; at most %d and %d are allowed", len(l.Modules), len(l.LeftOut), maxModules, maxLeftOut)
	}
	for _, name := range l.Modules {
		if !shareable(name) {
			return nil, fmt.Errorf("%.80q is no module that hosts tell each other of", name)
		}
	}
	for name, why := range l.LeftOut {
		if !isName(name) || strings.Contains(name, ".") || len(why) > maxReason || strings.ContainsFunc(why, unicode.IsControl) {
			return nil, fmt.Errorf("it leaves out %.80q because %.80q: no package, or no reason", name, why)
		}
	}
	return l, nil
}

// shareable reports whether a module's name is one that hosts tell each other of: not a program, nor a test, nor one that no
// zygote imports.
func shareable(name string) bool {
	if !isName(name) || never[top(name)] != "" {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "__main__" || part == "tests" || part == "conftest" {
			return false
		}
	}
	return true
}

// isName reports whether a name is one or more identifiers, joined by dots. Python's may have other letters; modules' do not.
func isName(name string) bool {
	if len(name) > maxName || strings.Count(name, ".") >= maxSegments {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		for i, c := range []byte(part) {
			letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
			if !letter && (i == 0 || c < '0' || c > '9') {
				return false
			}
		}
		if part == "" {
			return false
		}
	}
	return true
}

// share returns what another host is told: those modules that were imported here, without the version's own, since a
// zygote finds none of them.
func (l *Learned) share(imported map[string]bool) *Learned {
	out := &Learned{Modules: []string{}, LeftOut: map[string]string{}}
	for _, name := range l.Modules {
		if imported[name] && shareable(name) && len(out.Modules) < maxModules {
			out.Modules = append(out.Modules, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.LeftOut)) {
		if isName(name) && len(out.LeftOut) < maxLeftOut {
			out.LeftOut[name] = l.LeftOut[name]
		}
	}
	return out
}

// add appends the modules that are not there yet, and returns how many those were.
func (l *Learned) add(modules []string) int {
	before := len(l.Modules)
	l.Modules = unique(append(l.Modules, modules...))
	if len(l.Modules) > maxModules {
		l.Modules = l.Modules[:max(maxModules, before)]
	}
	return len(l.Modules) - before
}

// leaveOut adds to the packages that are left out.
func (l *Learned) leaveOut(name, why string) {
	if l.LeftOut == nil {
		l.LeftOut = map[string]string{}
	}
	l.LeftOut[name] = reason(why)
}

// reason makes a text fit for a Learned.
func reason(why string) string {
	why = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(why, ""))
	if len(why) > maxReason {
		why = strings.ToValidUTF8(why[:maxReason], "")
	}
	return why
}

// top returns the first part of a module's name.
func top(name string) string {
	first, _, _ := strings.Cut(name, ".")
	return first
}

// importable leaves out what a start-up looked for to run it, not to import it: a program.
func importable(args, modules []string) []string {
	return slices.DeleteFunc(unique(modules), func(name string) bool {
		return name == "__main__" || strings.HasSuffix(name, ".__main__") || args[0] == "-m" && name == args[1] || never[top(name)] != ""
	})
}

func unique(all []string) []string {
	seen := map[string]bool{}
	out := all[:0]
	for _, s := range all {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func set(all []string) map[string]bool {
	m := map[string]bool{}
	for _, s := range all {
		m[s] = true
	}
	return m
}
