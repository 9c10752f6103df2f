package merkle

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

func TestBuilderRefuses(t *testing.T) {
	for _, path := range []string{
		"", ".", "..", "/a", "a/", "a//b", "a/../b", "./a", "a\x00b", "a/\xff", strings.Repeat("d/", maxDepth) + "f",
	} {
		var b Builder
		require.ErrorIs(t, b.File(path, one), ErrPath, "%q", path)
		require.ErrorIs(t, b.Symlink(path, "x"), ErrPath, "%q", path)
	}
	var b Builder
	require.NoError(t, b.File("a/f", one))
	require.ErrorIs(t, b.File("a/f", one), ErrPath)
	require.ErrorIs(t, b.File("a", one), ErrPath)
	require.ErrorIs(t, b.File("a/f/g", one), ErrPath)
	require.ErrorIs(t, b.Symlink("a/f", "g"), ErrPath)
	require.NoError(t, b.Symlink("l", "a"))
	require.ErrorIs(t, b.File("l/g", one), ErrPath, "nothing is put below a symlink")
	require.ErrorContains(t, b.File("z", digest.Digest{}), "no digest")
	require.NoError(t, b.File(strings.Repeat("d/", maxDepth-1)+"f", one))
	tree, err := b.Build()
	require.NoError(t, err)
	require.Equal(t, 3, tree.Entries(), "what was refused is not there")
}

func TestSymlinksStayInside(t *testing.T) {
	for target, ok := range map[string]bool{
		"x": true, "../x": true, "../../x": true, ".": true, "../..": true, "y/../x": true, "./y/.././../x": true, "y//x/": true,
		"": false, "/etc/passwd": false, "../../../x": false, "y/../../../../x": false, "a\x00": false, "\xff": false,
		"../../..": false, "y/../../../..": false,
	} {
		var b Builder
		err := b.Symlink("a/b/link", target)
		if ok {
			require.NoError(t, err, "%q", target)
			_, err = b.Build()
			require.NoError(t, err, "%q", target)
			continue
		}
		require.ErrorIs(t, err, ErrPath, "%q", target)
	}
	require.ErrorIs(t, new(Builder).Symlink("link", "a/../../x"), ErrPath)
}

// TestSymlinkByWayOfAnother leaves the tree only where the kernel follows it: counted by names alone it stays inside.
func TestSymlinkByWayOfAnother(t *testing.T) {
	links := map[string]string{"a/b/up": "../..", "evil": "a/b/up/../../etc/passwd"}
	var b Builder
	for path, target := range links {
		require.NoError(t, b.Symlink(path, target))
	}
	_, err := b.Build()
	require.ErrorIs(t, err, ErrPath)
	require.ErrorContains(t, err, `"a/b/up"`)

	cas := memory.New()
	up := put(t, cas, &repb.Directory{Symlinks: []*repb.SymlinkNode{{Name: "up", Target: "../.."}}})
	inA := put(t, cas, &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "b", Digest: up.Proto()}}})
	root := put(t, cas, &repb.Directory{
		Directories: []*repb.DirectoryNode{{Name: "a", Digest: inA.Proto()}},
		Symlinks:    []*repb.SymlinkNode{{Name: "evil", Target: links["evil"]}},
	})
	_, err = Load(t.Context(), cas, root)
	require.ErrorIs(t, err, ErrPath)

	var good Builder
	require.NoError(t, good.Symlink("a/b/up", "../.."))
	require.NoError(t, good.Symlink("fine", "a/b/up/x"))
	require.NoError(t, good.Symlink("a/too", "b/../../y"))
	_, err = good.Build()
	require.NoError(t, err)
}

func put(t *testing.T, cas cache.CAS, msg *repb.Directory) digest.Digest {
	d, err := cache.PutMessage(t.Context(), cas, msg)
	require.NoError(t, err)
	return d
}

func TestLoadRefuses(t *testing.T) {
	f := func(name string) *repb.FileNode { return &repb.FileNode{Name: name, Digest: one.Proto()} }
	l := func(name, target string) *repb.SymlinkNode { return &repb.SymlinkNode{Name: name, Target: target} }
	empty := func(name string) *repb.DirectoryNode {
		return &repb.DirectoryNode{Name: name, Digest: digest.Empty.Proto()}
	}
	for what, msg := range map[string]*repb.Directory{
		"dot":           {Files: []*repb.FileNode{f(".")}},
		"dot dot":       {Directories: []*repb.DirectoryNode{empty("..")}},
		"empty":         {Files: []*repb.FileNode{f("")}},
		"slash":         {Files: []*repb.FileNode{f("a/b")}},
		"NUL":           {Symlinks: []*repb.SymlinkNode{l("a\x00", "x")}},
		"absolute":      {Symlinks: []*repb.SymlinkNode{l("a", "/x")}},
		"escape":        {Symlinks: []*repb.SymlinkNode{l("l", "a/../../x")}},
		"no target":     {Symlinks: []*repb.SymlinkNode{l("l", "")}},
		"twice":         {Files: []*repb.FileNode{f("a"), f("a")}},
		"order":         {Files: []*repb.FileNode{f("b"), f("a")}},
		"order of dirs": {Directories: []*repb.DirectoryNode{empty("b"), empty("a")}},
		"file and dir":  {Files: []*repb.FileNode{f("a")}, Directories: []*repb.DirectoryNode{empty("a")}},
		"dir and link":  {Directories: []*repb.DirectoryNode{empty("a")}, Symlinks: []*repb.SymlinkNode{l("a", "b")}},
	} {
		t.Run(what, func(t *testing.T) {
			cas := memory.New()
			_, err := Load(t.Context(), cas, put(t, cas, msg))
			require.ErrorIs(t, err, ErrPath)
			_, err = FromProto(&repb.Tree{Root: msg})
			require.ErrorIs(t, err, ErrPath)
		})
	}
	cas := memory.New()
	for _, d := range []*repb.Digest{nil, {Hash: "abc"}, {Hash: one.Hash(), SizeBytes: -1}} {
		root := put(t, cas, &repb.Directory{Files: []*repb.FileNode{{Name: "a", Digest: d}}})
		_, err := Load(t.Context(), cas, root)
		require.ErrorIs(t, err, digest.ErrInvalid)
		root = put(t, cas, &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "a", Digest: d}}})
		_, err = Load(t.Context(), cas, root)
		require.ErrorIs(t, err, digest.ErrInvalid)
	}
}

func TestLoadOfWhatIsNotThere(t *testing.T) {
	cas := memory.New()
	gone := digest.FromBytes([]byte("gone"))
	_, err := Load(t.Context(), cas, gone)
	require.ErrorIs(t, err, cache.ErrNotFound)
	msg := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "a", Digest: gone.Proto()}}}
	_, err = Load(t.Context(), cas, put(t, cas, msg))
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.ErrorContains(t, err, gone.String())
	_, err = FromProto(&repb.Tree{Root: msg})
	require.ErrorIs(t, err, cache.ErrNotFound)

	d, err := cache.PutBlob(t.Context(), cas, []byte("no message"))
	require.NoError(t, err)
	_, err = Load(t.Context(), cas, d)
	require.ErrorContains(t, err, "is not a Directory")
	require.NotErrorIs(t, err, cache.ErrNotFound)

	huge, err := digest.New(one.Hash(), 1<<60)
	require.NoError(t, err)
	_, err = Load(t.Context(), cas, huge)
	require.ErrorContains(t, err, "larger than")
}

func TestLoadOfInvalidUTF8(t *testing.T) {
	cas := memory.New()
	// Field 1, a FileNode, whose field 1, the name, is one byte that is no UTF-8.
	d, err := cache.PutBlob(t.Context(), cas, []byte{0x0a, 0x03, 0x0a, 0x01, 0xff})
	require.NoError(t, err)
	_, err = Load(t.Context(), cas, d)
	require.ErrorContains(t, err, "is not a Directory")
}

// TestDepthBomb nests one deeper than allowed, also where each half of the nesting is allowed on its own.
func TestDepthBomb(t *testing.T) {
	cas := memory.New()
	nest := func(d digest.Digest, n int) digest.Digest {
		for range n {
			d = put(t, cas, &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "d", Digest: d.Proto()}}})
		}
		return d
	}
	leaf := put(t, cas, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: one.Proto()}}})
	_, err := Load(t.Context(), cas, nest(leaf, maxDepth))
	require.NoError(t, err)
	_, err = Load(t.Context(), cas, nest(leaf, maxDepth+1))
	require.ErrorIs(t, err, ErrPath)

	half := nest(leaf, maxDepth-1)
	_, err = Load(t.Context(), cas, put(t, cas, &repb.Directory{Directories: []*repb.DirectoryNode{
		{Name: "a", Digest: half.Proto()}, {Name: "b", Digest: nest(half, maxDepth/2).Proto()},
	}}))
	require.ErrorIs(t, err, ErrPath)
	require.ErrorContains(t, err, "directories deep")
}

// TestDAGBomb is 60 blobs that expand to 2^60 files: walking it would not end.
func TestDAGBomb(t *testing.T) {
	cas := memory.New()
	for _, msg := range []*repb.Directory{{Files: []*repb.FileNode{{Name: "f", Digest: one.Proto()}}}, {}} {
		d := put(t, cas, msg)
		for range 60 {
			d = put(t, cas, &repb.Directory{Directories: []*repb.DirectoryNode{
				{Name: "a", Digest: d.Proto()}, {Name: "b", Digest: d.Proto()},
			}})
		}
		_, err := Load(t.Context(), cas, d)
		require.ErrorIs(t, err, ErrPath)
		require.ErrorContains(t, err, fmt.Sprint(maxEntries))
	}
}

// lying answers every Get with other bytes than were asked for; its reader says so, as every CAS's must.
type lying struct{ cache.CAS }

func (lying) Get(_ context.Context, d digest.Digest) (io.ReadCloser, error) {
	return digest.NewReader(io.NopCloser(strings.NewReader("other bytes")), d), nil
}

func TestDamagedBlobs(t *testing.T) {
	tree := small(t, 0, 1, 2, 3, 4)
	_, err := Load(t.Context(), lying{memory.New()}, tree.Root())
	require.ErrorIs(t, err, digest.ErrMismatch)
	dir := filepath.Join(t.TempDir(), "tree")
	_, err = Materialize(t.Context(), lying{memory.New()}, tree, dir)
	require.ErrorIs(t, err, digest.ErrMismatch)
	require.NoDirExists(t, dir)
}
