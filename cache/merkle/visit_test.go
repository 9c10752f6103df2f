package merkle_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
)

// foreign stores a Directory as another client may write it and returns its digest.
func foreign(t *testing.T, m *memory.Store, fn digest.Function, dir *repb.Directory) digest.Digest {
	b, err := proto.Marshal(dir)
	require.NoError(t, err)
	d := fn.FromBytes(b)
	require.NoError(t, cache.PutAll(t.Context(), m, []cache.Blob{{Digest: d, Data: b}}))
	return d
}

func dirNode(name string, d digest.Digest) *repb.DirectoryNode {
	return &repb.DirectoryNode{Name: name, Digest: d.Proto()}
}

// visited collects what a visit finds.
func visited(t *testing.T, m cache.CAS, root digest.Digest, b merkle.Bounds) (dirs, files, missing []digest.Digest, err error) {
	err = merkle.Visit(t.Context(), m, root, b, merkle.Visitor{
		Directory: func(d merkle.Directory) error {
			require.Equal(t, d.Digest, d.Digest.Function().FromBytes(d.Data))
			dirs, files = append(dirs, d.Digest), append(files, d.Files...)
			return nil
		},
		Missing: func(d digest.Digest, err error) error {
			require.ErrorIs(t, err, cache.ErrNotFound)
			missing = append(missing, d)
			return nil
		},
	})
	return dirs, files, missing, err
}

// TestVisitTakesForeignTrees: what Load rightly refuses for our own trees, other clients store.
func TestVisitTakesForeignTrees(t *testing.T) {
	for _, fn := range digest.Functions {
		m := memory.New()
		file, gone := fn.FromBytes([]byte("file")), fn.FromBytes([]byte("gone"))
		empty := foreign(t, m, fn, &repb.Directory{})
		odd := foreign(t, m, fn, &repb.Directory{
			Files:    []*repb.FileNode{{Name: "z", Digest: file.Proto()}, {Name: "a", Digest: file.Proto()}, {Name: "..", Digest: file.Proto()}},
			Symlinks: []*repb.SymlinkNode{{Name: "l", Target: "/etc/passwd"}},
		})
		root := foreign(t, m, fn, &repb.Directory{Directories: []*repb.DirectoryNode{
			dirNode("z", odd), dirNode("e", empty), dirNode("b", gone), dirNode("a", odd),
		}})
		dirs, files, missing, err := visited(t, m, root, merkle.DefaultBounds)
		require.NoError(t, err)
		require.Equal(t, []digest.Digest{root, odd, empty}, dirs)
		require.Equal(t, []digest.Digest{file, file, file}, files)
		require.Equal(t, []digest.Digest{gone}, missing)

		err = merkle.Visit(t.Context(), m, root, merkle.DefaultBounds, merkle.Visitor{Directory: func(merkle.Directory) error { return nil }})
		require.ErrorIs(t, err, cache.ErrNotFound)
		require.ErrorContains(t, err, gone.Hash())
	}
}

// backwards is a CAS that answers for many blobs in an order of its own.
type backwards struct{ *memory.Store }

func (b backwards) GetMany(ctx context.Context, ds []digest.Digest, each func(int, []byte, error)) error {
	for i := len(ds) - 1; i >= 0; i-- {
		data, err := cache.ReadBlob(ctx, b.Store, ds[i], 1<<20)
		each(i, data, err)
		clear(data)
	}
	return nil
}

// TestVisitKeepsOrder: whoever stops in the middle finds the place again.
func TestVisitKeepsOrder(t *testing.T) {
	m := memory.New()
	root := &repb.Directory{}
	for i := range 50 {
		leaf := foreign(t, m, digest.SHA256, &repb.Directory{Files: []*repb.FileNode{{Name: fmt.Sprint(i), Digest: digest.Empty.Proto()}}})
		child := foreign(t, m, digest.SHA256, &repb.Directory{Directories: []*repb.DirectoryNode{dirNode("x", leaf)}})
		root.Directories = append(root.Directories, dirNode(fmt.Sprint(i), child))
	}
	d := foreign(t, m, digest.SHA256, root)
	want, _, _, err := visited(t, m, d, merkle.DefaultBounds)
	require.NoError(t, err)
	require.Len(t, want, 101)
	got, _, _, err := visited(t, backwards{m}, d, merkle.DefaultBounds)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// TestVisitBomb walks a tree of 2^200 directories, which are 201 distinct ones.
func TestVisitBomb(t *testing.T) {
	m := memory.New()
	d := foreign(t, m, digest.SHA256, &repb.Directory{})
	for range 200 {
		d = foreign(t, m, digest.SHA256, &repb.Directory{Directories: []*repb.DirectoryNode{dirNode("a", d), dirNode("b", d)}})
	}
	dirs, _, _, err := visited(t, m, d, merkle.DefaultBounds)
	require.NoError(t, err)
	require.Len(t, dirs, 201)
}

func TestVisitBounds(t *testing.T) {
	m := memory.New()
	root := &repb.Directory{}
	for i := range 20 {
		child := foreign(t, m, digest.SHA256, &repb.Directory{Files: []*repb.FileNode{{Name: fmt.Sprint(i), Digest: digest.Empty.Proto()}}})
		root.Directories = append(root.Directories, dirNode(fmt.Sprint(i), child))
	}
	d := foreign(t, m, digest.SHA256, root)
	_, _, _, err := visited(t, m, d, merkle.Bounds{Directories: 21, Bytes: 1 << 20})
	require.NoError(t, err)
	_, _, _, err = visited(t, m, d, merkle.Bounds{Directories: 20, Bytes: 1 << 20})
	require.ErrorIs(t, err, merkle.ErrTooLarge)
	_, _, _, err = visited(t, m, d, merkle.Bounds{Directories: 21, Bytes: 2000})
	require.ErrorIs(t, err, merkle.ErrTooLarge)
	huge, err := digest.New(d.Hash(), 1<<60)
	require.NoError(t, err)
	_, _, _, err = visited(t, m, huge, merkle.DefaultBounds)
	require.ErrorIs(t, err, merkle.ErrTooLarge)
}

func TestVisitRefuses(t *testing.T) {
	m := memory.New()
	noMessage, err := cache.PutBlob(t.Context(), m, []byte("no message"))
	require.NoError(t, err)
	_, _, _, err = visited(t, m, noMessage, merkle.DefaultBounds)
	require.ErrorIs(t, err, merkle.ErrMessage)
	require.ErrorContains(t, err, "is not a Directory")
	bad := foreign(t, m, digest.SHA256, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: &repb.Digest{Hash: "x"}}}})
	_, _, _, err = visited(t, m, bad, merkle.DefaultBounds)
	require.ErrorIs(t, err, digest.ErrInvalid)
	stop := errors.New("stop")
	err = merkle.Visit(t.Context(), m, digest.Empty, merkle.DefaultBounds, merkle.Visitor{Directory: func(merkle.Directory) error { return stop }})
	require.ErrorIs(t, err, stop)
}

// TestSplitTree keeps the encoding of a client that writes fields in another order than we do.
func TestSplitTree(t *testing.T) {
	child, err := proto.Marshal(&repb.Directory{Symlinks: []*repb.SymlinkNode{{Name: "l", Target: "t"}}})
	require.NoError(t, err)
	file, err := proto.Marshal(&repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: digest.Empty.Proto()}}})
	require.NoError(t, err)
	odd := append(append([]byte{}, child...), file...) // symlinks before files
	tree := append([]byte{1<<3 | 2, 0, 2<<3 | 2, byte(len(odd))}, odd...)
	require.NoError(t, proto.Unmarshal(tree, &repb.Tree{}))
	for _, fn := range digest.Functions {
		got, err := merkle.SplitTree(tree, fn)
		require.NoError(t, err)
		require.Len(t, got, 2)
		require.True(t, got[0].Digest.IsEmpty())
		require.Equal(t, fn.FromBytes(odd), got[1].Digest)
		require.Equal(t, odd, got[1].Data)
	}
	got, err := merkle.SplitTree(nil, digest.SHA256)
	require.NoError(t, err)
	require.Equal(t, digest.Empty, got[0].Digest, "a Tree without a root has the empty one")
	_, err = merkle.SplitTree([]byte("no message"), digest.SHA256)
	require.ErrorIs(t, err, merkle.ErrMessage)
}

// FuzzSplitTree compares with the generated parser: what that one takes is split into as many Directories.
func FuzzSplitTree(f *testing.F) {
	f.Add([]byte{10, 0, 18, 0})
	f.Add([]byte{10, 2, 10, 0, 18, 4, 18, 2, 10, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := merkle.SplitTree(data, digest.SHA256)
		var p repb.Tree
		if proto.Unmarshal(data, &p) == nil {
			require.NoError(t, err)
			require.Len(t, got, 1+len(p.GetChildren()))
		}
		m := memory.New()
		if err == nil && cache.PutAll(t.Context(), m, got) == nil {
			_, _, _, _ = visited(t, m, got[0].Digest, merkle.DefaultBounds)
		}
	})
}
