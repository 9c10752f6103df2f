// Package compare says what differs between two versions of a location: wheel by wheel, file by file, and in how they are
// run. It reads Directories, and no file: two trees are walked side by side, and what has one digest is passed over.
package compare

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// Kind is what happened to a wheel, file or setting.
type Kind string

// The kinds of changes.
const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
)

// File is one file or symlink that differs. A size is 0 where there is no file.
type File struct {
	Path   string `json:"path"`
	Kind   Kind   `json:"kind"`
	Before int64  `json:"before"`
	After  int64  `json:"after"`
}

// Wheel is one distribution that differs. From and To are its versions, as the wheels' names say them.
type Wheel struct {
	Name   string `json:"name"`
	Kind   Kind   `json:"kind"`
	From   string `json:"from"`
	To     string `json:"to"`
	Before int64  `json:"before"` // bytes of the wheel
	After  int64  `json:"after"`
}

// Tree is what changed in one tree.
type Tree struct {
	Name  string `json:"name"`
	Files []File `json:"files"`
}

// Setting is something else that makes a version. Values of environment variables are left out.
type Setting struct {
	Name   string `json:"name"`
	Before string `json:"before"`
	After  string `json:"after"`
	Kind   Kind   `json:"kind"`
}

// Changes is all that makes two versions differ.
type Changes struct {
	Wheels   []Wheel
	Trees    []Tree // "source", then each further tree, then "deps" for what is no wheel; those without a change are left out
	Settings []Setting
}

// Empty reports whether nothing differs.
func (c *Changes) Empty() bool {
	return len(c.Wheels) == 0 && len(c.Trees) == 0 && len(c.Settings) == 0
}

// Versions compares two versions, whose Directories are in cas.
func Versions(ctx context.Context, cas cache.CAS, before, after *codeserverpb.VersionSpec) (*Changes, error) {
	c := &Changes{Settings: settings(before, after)}
	deps, err := trees(ctx, cas, "deps", before.GetDepsRoot(), after.GetDepsRoot())
	if err != nil {
		return nil, err
	}
	var rest []File
	c.Wheels, rest = wheels(deps)
	add := func(name string, files []File) {
		if len(files) > 0 {
			c.Trees = append(c.Trees, Tree{name, files})
		}
	}
	files, err := trees(ctx, cas, "source", before.GetSourceRoot(), after.GetSourceRoot())
	if err != nil {
		return nil, err
	}
	add("source", files)
	names := map[string]bool{}
	for _, outputs := range []map[string]bool{keys(before.GetOutputs()), keys(after.GetOutputs())} {
		maps.Copy(names, outputs)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if files, err = trees(ctx, cas, "output "+name, before.GetOutputs()[name], after.GetOutputs()[name]); err != nil {
			return nil, err
		}
		add("output "+name, files)
	}
	add("deps", rest)
	return c, nil
}

func keys[V any](m map[string]V) map[string]bool {
	all := map[string]bool{}
	for k := range m {
		all[k] = true
	}
	return all
}

// wheels separates wheels from the other files of a deps tree. A wheel that is gone and one that came, of one name, are
// one change.
func wheels(files []File) (all []Wheel, rest []File) {
	byName := map[string]*Wheel{}
	for _, f := range files {
		name, version, ok := distribution(f.Path)
		if !ok {
			rest = append(rest, f)
			continue
		}
		w := byName[name]
		if w == nil {
			w = &Wheel{Name: name}
			byName[name] = w
		}
		if f.Kind != Added {
			w.From, w.Before = version, w.Before+f.Before
		}
		if f.Kind != Removed {
			w.To, w.After = version, w.After+f.After
		}
	}
	for _, w := range byName {
		switch {
		case w.From == "":
			w.Kind = Added
		case w.To == "":
			w.Kind = Removed
		default:
			w.Kind = Changed
		}
		all = append(all, *w)
	}
	slices.SortFunc(all, func(a, b Wheel) int { return cmp.Compare(a.Name, b.Name) })
	return all, rest
}

// distribution reads name and version from a wheel's path.
func distribution(p string) (name, version string, ok bool) {
	dir, file := path.Split(p)
	stem, ok := strings.CutSuffix(file, ".whl")
	parts := strings.Split(stem, "-")
	if !ok || dir != ".deps/" || len(parts) < 5 {
		return "", "", false
	}
	return strings.ToLower(strings.ReplaceAll(parts[0], "_", "-")), parts[1], true
}

// trees compares two trees; none is an empty one.
func trees(ctx context.Context, cas cache.CAS, what string, before, after digestProto) ([]File, error) {
	w := &walk{ctx: ctx, cas: cas}
	a, err := parse(before)
	if err == nil {
		var b digest.Digest
		if b, err = parse(after); err == nil {
			err = w.dirs(a, b, "")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", what, err)
	}
	slices.SortFunc(w.files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return w.files, nil
}
