package compare

import (
	"context"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// tree stores a tree of files; a content that begins with "->" is a symlink.
func tree(t *testing.T, cas cache.CAS, files map[string]string) *repb.Digest {
	var b merkle.Builder
	for path, content := range files {
		if len(content) > 2 && content[:2] == "->" {
			require.NoError(t, b.Symlink(path, content[2:]))
			continue
		}
		d, err := cache.PutBlob(context.Background(), cas, []byte(content))
		require.NoError(t, err)
		require.NoError(t, b.File(path, d))
	}
	tr, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tr.Put(context.Background(), cas))
	return tr.Root().Proto()
}

func TestVersions(t *testing.T) {
	type files = map[string]string
	for _, tt := range []struct {
		name                       string
		depsA, depsB, fromA, fromB files
		a, b                       *codeserverpb.VersionSpec
		want                       Changes
	}{
		{name: "nothing", depsA: files{"PEX-INFO": "1"}, depsB: files{"PEX-INFO": "1"}, fromA: files{"a": "1"}, fromB: files{"a": "1"}},
		{
			name:  "a wheel is bumped, one comes, one goes",
			depsA: files{".deps/My_Lib-1.0-py3-none-any.whl": "1", ".deps/old-2-py3-none-any.whl": "22", ".deps/same-1-py3-none-any.whl": "s"},
			depsB: files{".deps/My_Lib-1.1-py3-none-any.whl": "123", ".deps/new-3-1-py3-none-any.whl": "333", ".deps/same-1-py3-none-any.whl": "s"},
			want: Changes{Wheels: []Wheel{
				{"my-lib", Changed, "1.0", "1.1", 1, 3}, {"new", Added, "", "3", 0, 3}, {"old", Removed, "2", "", 2, 0},
			}},
		},
		{
			name:  "the same wheel with other bytes",
			depsA: files{".deps/x-1-py3-none-any.whl": "1", "PEX-INFO": "1"}, depsB: files{".deps/x-1-py3-none-any.whl": "12", "PEX-INFO": "2"},
			want: Changes{
				Wheels: []Wheel{{"x", Changed, "1", "1", 1, 2}},
				Trees:  []Tree{{"deps", []File{{"PEX-INFO", Changed, 1, 1}}}},
			},
		},
		{
			name:  "files of each kind, at each depth",
			fromA: files{"pkg/a.py": "1", "pkg/sub/gone.py": "22", "pkg/sub/same.py": "s", "link": "->pkg/a.py", "top": "t"},
			fromB: files{"pkg/a.py": "12", "pkg/new/n.py": "333", "pkg/sub/same.py": "s", "link": "->pkg/new/n.py", "top": "t"},
			want: Changes{Trees: []Tree{{"source", []File{
				{"link", Changed, 0, 0}, {"pkg/a.py", Changed, 1, 2}, {"pkg/new/n.py", Added, 0, 3}, {"pkg/sub/gone.py", Removed, 2, 0},
			}}}},
		},
		{
			name:  "a wheel below another directory is a file",
			depsA: files{"PEX-INFO": "1"}, depsB: files{"PEX-INFO": "1", "vendor/x-1-py3-none-any.whl": "22"},
			want: Changes{Trees: []Tree{{"deps", []File{{"vendor/x-1-py3-none-any.whl", Added, 0, 2}}}}},
		},
		{
			name: "a file becomes a directory", fromA: files{"x": "1"}, fromB: files{"x/y": "22"},
			want: Changes{Trees: []Tree{{"source", []File{{"x", Removed, 1, 0}, {"x/y", Added, 0, 2}}}}},
		},
		{
			name: "settings, and of variables only the names",
			a:    &codeserverpb.VersionSpec{Python: "3.11", Env: map[string]string{"A": "hush-1", "B": "hush-2"}},
			b: &codeserverpb.VersionSpec{
				Python: "3.12", Env: map[string]string{"B": "hush-3", "C": "hush-4"}, Cold: true,
				Limits: &codeserverpb.Limits{Pids: 5}, Entry: &codeserverpb.Entry{Readiness: &codeserverpb.Readiness{Probe: &codeserverpb.Readiness_HttpPath{HttpPath: "/up"}}},
			},
			want: Changes{Settings: []Setting{
				{"env A", "set", "", Removed},
				{"env B", "set", "another value", Changed},
				{"env C", "", "set", Added},
				{"limit processes", "", "5", Added},
				{"python", "3.11", "3.12", Changed},
				{"readiness", "", "HTTP /up", Added},
				{"warm start", "", "off", Added},
			}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cas := memory.New()
			a, b := tt.a, tt.b
			if a == nil {
				a, b = &codeserverpb.VersionSpec{}, &codeserverpb.VersionSpec{}
			}
			a.DepsRoot, b.DepsRoot = tree(t, cas, tt.depsA), tree(t, cas, tt.depsB)
			a.SourceRoot, b.SourceRoot = tree(t, cas, tt.fromA), tree(t, cas, tt.fromB)
			got, err := Versions(t.Context(), cas, a, b)
			require.NoError(t, err)
			require.Equal(t, &tt.want, got)
			require.Equal(t, tt.name == "nothing", got.Empty())
		})
	}
}

// TestOutputs compares further trees, one of which only one version has.
func TestOutputs(t *testing.T) {
	cas := memory.New()
	empty := tree(t, cas, nil)
	a := &codeserverpb.VersionSpec{DepsRoot: empty, SourceRoot: empty, Outputs: map[string]*repb.Digest{
		"assets": tree(t, cas, map[string]string{"app.css": "1"}),
	}}
	b := &codeserverpb.VersionSpec{DepsRoot: empty, SourceRoot: empty, Outputs: map[string]*repb.Digest{
		"assets": tree(t, cas, map[string]string{"app.css": "22"}), "docs": tree(t, cas, map[string]string{"index.html": "333"}),
	}}
	got, err := Versions(t.Context(), cas, a, b)
	require.NoError(t, err)
	require.Equal(t, []Tree{
		{"output assets", []File{{"app.css", Changed, 1, 2}}}, {"output docs", []File{{"index.html", Added, 0, 3}}},
	}, got.Trees)
}

// TestUnchangedIsNotRead: what has one digest is passed over, wherever it is.
func TestUnchangedIsNotRead(t *testing.T) {
	cas := memory.New()
	empty := tree(t, cas, nil)
	lost := tree(t, memory.New(), map[string]string{"big/file": "1"})
	spec := &codeserverpb.VersionSpec{DepsRoot: lost, SourceRoot: empty}
	got, err := Versions(t.Context(), cas, spec, spec)
	require.NoError(t, err)
	require.True(t, got.Empty())

	other := &codeserverpb.VersionSpec{DepsRoot: empty, SourceRoot: empty}
	_, err = Versions(t.Context(), cas, spec, other)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.ErrorContains(t, err, "compare deps")
}
