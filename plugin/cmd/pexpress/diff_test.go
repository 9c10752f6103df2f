package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/compare"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// putTree stores a tree of files in a cache.
func putTree(t *testing.T, cas cache.CAS, files map[string]string) *repb.Digest {
	var b merkle.Builder
	for path, content := range files {
		d, err := cache.PutBlob(t.Context(), cas, []byte(content))
		require.NoError(t, err)
		require.NoError(t, b.File(path, d))
	}
	tree, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tree.Put(t.Context(), cas))
	return tree.Root().Proto()
}

// TestDiff compares versions whose trees are in the cache, and some that it does not have.
func TestDiff(t *testing.T) {
	type files = map[string]string
	dir := t.TempDir()
	store, err := disk.Open(dir, disk.Options{})
	require.NoError(t, err)
	same := putTree(t, store, files{"a.css": "1"})
	now := &codeserverpb.VersionSpec{
		DepsRoot:   putTree(t, store, files{".deps/lib-1.1-py3-none-any.whl": "333", ".deps/new-2-py3-none-any.whl": "22"}),
		SourceRoot: putTree(t, store, files{"web/app.py": "22", "web/new.py": "1"}),
		Outputs:    map[string]*repb.Digest{"assets": same, "docs": same},
		Env:        map[string]string{"TOKEN": "hush"}, Limits: &codeserverpb.Limits{Pids: 5},
	}
	before := &codeserverpb.VersionSpec{
		DepsRoot:   putTree(t, store, files{".deps/lib-1.0-py3-none-any.whl": "1", ".deps/old-3-py3-none-any.whl": "1"}),
		SourceRoot: putTree(t, store, files{"web/app.py": "1", "gone.py": "1"}),
		Outputs:    map[string]*repb.Digest{"assets": same}, Python: "3.11",
	}
	lost := &codeserverpb.VersionSpec{DepsRoot: before.GetDepsRoot(), SourceRoot: &repb.Digest{Hash: before.GetSourceRoot().GetHash(), SizeBytes: 7}}
	require.NoError(t, store.Close())
	l := &codeserverpb.Location{Name: "web", Current: "aaaa", Previous: "bbbb", Versions: []*codeserverpb.Version{
		{Name: "aaaa", Spec: now}, {Name: "bbbb", Spec: before}, {Name: "cccc", Spec: lost},
	}}
	run := func(asJSON bool, args ...string) (string, error) {
		var out bytes.Buffer
		a := &app{dir: t.TempDir(), cache: dir, cacheChosen: true, ui: newUI(asJSON, &out, io.Discard)}
		err := a.diff(t.Context(), []*codeserverpb.Location{l}, args)
		return out.String(), err
	}

	text, err := run(false)
	require.NoError(t, err)
	require.Regexp(t, `^web: from bbbb \([^)]*\d\) to aaaa \([^)]*, serves\)\n`, text)
	_, text, _ = strings.Cut(text, "\n")
	require.Equal(t, `wheels:
  changed  lib 1.0 -> 1.1 (3 B, +2 B)
  added    new 2 (2 B)
  removed  old 3 (1 B)
files of source.pex:
  removed  gone.py (1 B)
  changed  web/app.py (2 B, +1 B)
  added    web/new.py (1 B)
files of output docs:
  added    a.css (1 B)
settings:
  added    env TOKEN: set
  added    limit processes: 5
  removed  python: 3.11
`, text)

	text, err = run(true, "web", "b")
	require.NoError(t, err)
	var v struct {
		Event, Location, From, To string
		Wheels                    []struct{ Name, Kind, From, To string }
		Trees                     []struct {
			Name  string
			Files []struct {
				Path, Kind    string
				Before, After int
			}
		}
		Settings []struct{ Name, Kind string }
	}
	require.NoError(t, json.Unmarshal([]byte(text), &v))
	require.Equal(t, []string{"diff", "web", "bbbb", "aaaa"}, []string{v.Event, v.Location, v.From, v.To})
	require.Equal(t, struct{ Name, Kind, From, To string }{"lib", "changed", "1.0", "1.1"}, v.Wheels[0])
	require.Equal(t, "web/app.py", v.Trees[0].Files[1].Path)
	require.Equal(t, 2, v.Trees[0].Files[1].After)
	require.Equal(t, "env TOKEN", v.Settings[0].Name)
	require.NotContains(t, text, "hush")

	text, err = run(true, "web", "aaaa", "aaaa")
	require.NoError(t, err)
	require.JSONEq(t, `{"event": "diff", "location": "web", "from": "aaaa", "to": "aaaa", "wheels": [], "trees": [], "settings": []}`, text)
	text, err = run(false, "web", "aaaa", "aaaa")
	require.NoError(t, err)
	require.Contains(t, text, "\n  nothing differs\n")

	_, err = run(false, "web", "c", "b")
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.ErrorContains(t, err, "the cache "+dir+" does not have all of cccc and bbbb of web")
	require.Equal(t, exitUnavailable, exitCode(err))
	_, err = run(false, "shop")
	require.ErrorContains(t, err, `no location "shop"`)
}

// TestLocationIn: without a name it is the only location, or the only one that is the project's.
func TestLocationIn(t *testing.T) {
	one := []*codeserverpb.Version{{Name: "a"}}
	web, shop := &codeserverpb.Location{Name: "web", Versions: one}, &codeserverpb.Location{Name: "shop", Versions: one}
	unread := &codeserverpb.Location{Name: "*", Channel: "prod"}
	a := &app{dir: t.TempDir()}
	l, err := a.locationIn("diff", []*codeserverpb.Location{unread, web}, nil)
	require.NoError(t, err)
	require.Same(t, web, l)
	_, err = a.locationIn("diff", []*codeserverpb.Location{unread}, nil)
	require.ErrorContains(t, err, "serves nothing yet")
	all := []*codeserverpb.Location{shop, web}
	_, err = a.locationIn("diff", all, nil)
	require.ErrorContains(t, err, "several locations, shop, web: name one, as in 'pexpress diff LOCATION'")
	require.Equal(t, exitUsage, exitCode(err))
	require.NoError(t, os.WriteFile(filepath.Join(a.dir, "pexpress.toml"), []byte("[location.web]\n[location.other]\n"), 0o644))
	l, err = a.locationIn("diff", all, nil)
	require.NoError(t, err)
	require.Same(t, web, l)
	l, err = a.locationIn("diff", all, []string{"shop"})
	require.NoError(t, err)
	require.Same(t, shop, l)
}

// TestVersionPair: which versions are meant by the names that are given.
func TestVersionPair(t *testing.T) {
	stopped, starting := codeserverpb.State_STOPPED, codeserverpb.State_STARTING
	for _, c := range []struct {
		names                     []string
		current, previous, canary string
		before, after, says       string
	}{
		{current: "b1", previous: "a1", before: "a1", after: "b1"},
		{current: "b1", before: "c1", after: "b1"},
		{current: "b1", canary: "c1", before: "a22", after: "b1"},
		{current: "b1", previous: "a1", names: []string{"a2"}, before: "a22", after: "b1"},
		{current: "b1", names: []string{"c", "a1"}, before: "c1", after: "a1"},
		{current: "b1", names: []string{"a1", "b1"}, before: "a1", after: "b1"},
		{names: []string{"c", "b"}, before: "c1", after: "b1"},
		{names: []string{"c"}, says: "serves no version now"},
		{current: "b1", names: []string{"a"}, says: "a is the beginning of several versions of web"},
		{current: "b1", names: []string{"a1", "x"}, says: `no version "x"`},
		{current: "b1", names: []string{""}, says: `no version ""`},
	} {
		l := &codeserverpb.Location{Name: "web", Current: c.current, Previous: c.previous, Canary: c.canary, Versions: []*codeserverpb.Version{
			{Name: "d1", State: starting}, {Name: "c1", State: stopped}, {Name: "b1"}, {Name: "a22", State: stopped}, {Name: "a1"}, {Name: "a22"},
		}}
		before, after, err := versionPair(l, c.names)
		if c.says != "" {
			require.ErrorContains(t, err, c.says)
			require.Equal(t, exitInput, exitCode(err))
			continue
		}
		require.NoError(t, err)
		require.Equal(t, []string{c.before, c.after}, []string{before.GetName(), after.GetName()}, "%+v", c)
	}
	_, _, err := versionPair(&codeserverpb.Location{Name: "web", Current: "a", Versions: []*codeserverpb.Version{{Name: "a"}}}, nil)
	require.ErrorContains(t, err, "one version only")
}

// TestDiffLines: what a file is called does not make lines of its own.
func TestDiffLines(t *testing.T) {
	require.Equal(t, "files of source.pex:\n  added    b\\nsettings:\\t\\x1b[2J (1 B)", changesText(&compare.Changes{
		Trees: []compare.Tree{{Name: "source", Files: []compare.File{{Path: "b\nsettings:\t\x1b[2J", Kind: compare.Added, After: 1}}}},
	}))
}
