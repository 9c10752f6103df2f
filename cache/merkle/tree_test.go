package merkle

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// golden is the digest of the tree that small builds. It must never change: what was deployed under it would be lost.
const golden = "ac1e8b13a9a3cb54f89367e56788751992a6b2b4439c9d0e69b1e6608efe568b/240"

var (
	one = digest.FromBytes([]byte("one"))
	two = digest.FromBytes([]byte("two"))
)

func small(t *testing.T, order ...int) *Tree {
	var b Builder
	steps := []func() error{
		func() error { return b.File("pkg/__init__.py", digest.Empty) },
		func() error { return b.File("pkg/ä.py", one) },
		func() error { return b.File("__main__.py", two) },
		func() error { return b.Symlink("pkg/again", "../__main__.py") },
		func() error { return b.File("a/b/c", one) },
	}
	for _, i := range order {
		require.NoError(t, steps[i]())
	}
	tree, err := b.Build()
	require.NoError(t, err)
	return tree
}

func TestGoldenInAnyOrder(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}} {
		require.Equal(t, golden, small(t, order...).Root().String())
	}
}

func TestCanonicalForm(t *testing.T) {
	tree := small(t, 4, 2, 3, 1, 0)
	p := tree.Proto()
	_, root, err := digest.Marshal(p.GetRoot())
	require.NoError(t, err)
	require.Equal(t, tree.Root(), root)
	require.Len(t, p.GetChildren(), 3)
	var children []digest.Digest
	for _, c := range p.GetChildren() {
		_, d, err := digest.Marshal(c)
		require.NoError(t, err)
		children = append(children, d)
	}
	require.True(t, slices.IsSortedFunc(children, digest.Digest.Compare))
	require.NotContains(t, children, root)

	seen := map[digest.Digest]bool{}
	for d, data := range tree.Blobs() {
		require.Equal(t, d, digest.FromBytes(data))
		msg, ok := tree.Directory(d)
		require.True(t, ok)
		requireCanonical(t, msg)
		for _, c := range msg.GetDirectories() {
			cd, err := digest.FromProto(c.GetDigest())
			require.NoError(t, err)
			require.True(t, seen[cd], "children stand before parents")
		}
		seen[d] = true
	}
	require.Len(t, seen, 4)
	require.Equal(t, 5, tree.Entries())
	_, ok := tree.Directory(one)
	require.False(t, ok)
}

func requireCanonical(t *testing.T, msg *repb.Directory) {
	var files, dirs, links []string
	for _, f := range msg.GetFiles() {
		require.True(t, f.GetIsExecutable())
		require.Nil(t, f.GetNodeProperties())
		files = append(files, f.GetName())
	}
	for _, d := range msg.GetDirectories() {
		dirs = append(dirs, d.GetName())
	}
	for _, l := range msg.GetSymlinks() {
		links = append(links, l.GetName())
	}
	require.True(t, slices.IsSorted(files) && slices.IsSorted(dirs) && slices.IsSorted(links))
	require.Nil(t, msg.GetNodeProperties())
	require.NotZero(t, len(files)+len(dirs)+len(links), "no empty directories")
}

func TestEmptyTree(t *testing.T) {
	tree, err := new(Builder).Build()
	require.NoError(t, err)
	require.Equal(t, digest.Empty, tree.Root())
	require.Empty(t, maps.Collect(tree.Files()))
	loaded, err := Load(t.Context(), memory.New(), digest.Empty)
	require.NoError(t, err)
	require.Zero(t, loaded.Entries())
}

func TestLoadIsTheInverse(t *testing.T) {
	tree := small(t, 0, 1, 2, 3, 4)
	cas := memory.New()
	require.NoError(t, tree.Put(t.Context(), cas))
	loaded, err := Load(t.Context(), cas, tree.Root())
	require.NoError(t, err)
	requireSame(t, tree, loaded)

	data, _, err := digest.Marshal(tree.Proto())
	require.NoError(t, err)
	var p repb.Tree
	require.NoError(t, proto.Unmarshal(data, &p))
	parsed, err := FromProto(&p)
	require.NoError(t, err)
	requireSame(t, tree, parsed)
}

// TestKnownDirectoriesAreNotRead loads a tree of which all but the root is known.
func TestKnownDirectoriesAreNotRead(t *testing.T) {
	tree := small(t, 0, 1, 2, 3, 4)
	cas := memory.New()
	root, err := cache.PutBlob(t.Context(), cas, tree.dirs[tree.root].data)
	require.NoError(t, err)
	known := func(d digest.Digest) *Tree {
		if d == root {
			return nil
		}
		return tree
	}
	loaded, err := LoadKnown(t.Context(), cas, root, known)
	require.NoError(t, err)
	requireSame(t, tree, loaded)
	_, err = Load(t.Context(), cas, root)
	require.ErrorIs(t, err, cache.ErrNotFound)

	files := map[string]digest.Digest{}
	for n := range loaded.Nodes() {
		for name, d := range n.Files() {
			files[join(n.Path, name)] = d
		}
	}
	require.Equal(t, maps.Collect(tree.Files()), files)
	beyond := loaded.Beyond(func(d digest.Digest) bool { return known(d) != nil })
	require.Equal(t, append([]digest.Digest{root}, tree.dirs[root].files...), beyond)
}

// TestLoadByLevels loads from a CAS that answers for many at once, and says of what is missing there what it says elsewhere.
func TestLoadByLevels(t *testing.T) {
	tree := small(t, 0, 1, 2, 3, 4)
	cas := memory.New()
	require.NoError(t, tree.Put(t.Context(), cas))
	many := &inLevels{CAS: cas}
	loaded, err := Load(t.Context(), many, tree.Root())
	require.NoError(t, err)
	requireSame(t, tree, loaded)
	deepest := 0
	for n := range tree.Nodes() {
		deepest = max(deepest, strings.Count("/"+n.Path, "/"))
	}
	require.LessOrEqual(t, many.questions, deepest+1)

	bare := memory.New()
	root, err := cache.PutBlob(t.Context(), bare, tree.dirs[tree.root].data)
	require.NoError(t, err)
	_, want := Load(t.Context(), bare, root)
	_, got := Load(t.Context(), &inLevels{CAS: bare}, root)
	require.EqualError(t, got, want.Error())
	require.ErrorIs(t, got, cache.ErrNotFound)
}

// TestLoadAtOnce loads from a CAS that hands out trees: whole, in part, not at all, or with what nobody asked for.
func TestLoadAtOnce(t *testing.T) {
	tree, other := small(t, 0, 1, 2, 3, 4), small(t, 4)
	for name, c := range map[string]struct {
		dirs   []*repb.Directory
		fails  error
		single int // Directories that are read one by one
	}{
		"whole": {dirs: messages(tree)},
		"part":  {dirs: messages(tree)[1:], fails: errors.New("broken"), single: 1},
		"none":  {fails: errors.New("unimplemented"), single: len(tree.order)},
		"more":  {dirs: append(messages(other), messages(tree)...)},
	} {
		t.Run(name, func(t *testing.T) {
			cas := memory.New()
			require.NoError(t, tree.Put(t.Context(), cas))
			trees := &atOnce{CAS: cas, dirs: c.dirs, fails: c.fails}
			loaded, err := Load(t.Context(), trees, tree.Root())
			require.NoError(t, err)
			requireSame(t, tree, loaded)
			require.Equal(t, c.single, trees.single)
		})
	}
	_, err := Load(t.Context(), &atOnce{CAS: memory.New(), dirs: messages(tree)[:1]}, tree.Root())
	require.ErrorIs(t, err, cache.ErrNotFound)
}

func messages(t *Tree) (msgs []*repb.Directory) {
	for _, d := range t.order {
		msgs = append(msgs, t.dirs[d].msg)
	}
	return msgs
}

// atOnce is a CAS that hands out trees.
type atOnce struct {
	cache.CAS
	dirs   []*repb.Directory
	fails  error
	single int
}

func (a *atOnce) GetTree(_ context.Context, _ digest.Digest, each func(*repb.Directory) error) error {
	for _, d := range a.dirs {
		if err := each(d); err != nil {
			return err
		}
	}
	return a.fails
}

func (a *atOnce) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	a.single++
	return a.CAS.Get(ctx, d)
}

// inLevels is a CAS that answers for many blobs at once.
type inLevels struct {
	cache.CAS
	questions int
}

func (l *inLevels) GetMany(ctx context.Context, ds []digest.Digest, each func(int, []byte, error)) error {
	l.questions++
	for i, d := range ds {
		data, err := cache.ReadBlob(ctx, l.CAS, d, cache.MaxMessage)
		each(i, data, err)
		clear(data)
	}
	return nil
}

func requireSame(t require.TestingT, want, got *Tree) {
	require.Equal(t, want.Root(), got.Root())
	require.Equal(t, maps.Collect(want.Blobs()), maps.Collect(got.Blobs()))
	require.Equal(t, maps.Collect(want.Files()), maps.Collect(got.Files()))
	require.Equal(t, maps.Collect(want.Symlinks()), maps.Collect(got.Symlinks()))
	require.True(t, proto.Equal(want.Proto(), got.Proto()))
}

func TestIteratorsStopWhenTold(t *testing.T) {
	tree := small(t, 0, 1, 2, 3, 4)
	n := 0
	for range tree.Files() {
		n++
		break
	}
	for range tree.Blobs() {
		n++
		break
	}
	require.Equal(t, 2, n)
}

func TestGraft(t *testing.T) {
	sub := small(t, 0, 1, 2, 3, 4)
	var b Builder
	require.NoError(t, b.Graft("z", sub))
	require.NoError(t, b.Graft("x/y", sub))
	require.ErrorIs(t, b.File("z/new", two), ErrPath, "what is taken over stays as it is")
	empty, err := new(Builder).Build()
	require.NoError(t, err)
	require.NoError(t, b.Graft("nothing", empty))
	tree, err := b.Build()
	require.NoError(t, err)
	require.Equal(t, 2*sub.Entries(), tree.Entries())
	require.Equal(t, two, maps.Collect(tree.Files())["x/y/__main__.py"])
	require.ErrorIs(t, b.Graft("x/y", sub), ErrPath)
	_, ok := tree.Directory(sub.Root())
	require.True(t, ok, "a subtree keeps its digest")
	_, ok = tree.Sub("nothing")
	require.False(t, ok, "there are no empty directories")
	again, ok := tree.Sub("z")
	require.True(t, ok)
	require.Equal(t, sub.Root(), again.Root())
	require.Equal(t, maps.Collect(sub.Files()), maps.Collect(again.Files()))
	require.Equal(t, maps.Collect(sub.Blobs()), maps.Collect(again.Blobs()))
}

// TestRoundTrip builds random trees in a random order: Load gives back what went in, under a digest that depends on
// nothing else.
func TestRoundTrip(t *testing.T) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "é", "a.b", "a-b", "A", "日本", " ", "x"})
	path := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(name, 1, 4).Draw(t, "names"), "/")
	})
	rapid.Check(t, func(t *rapid.T) {
		files := map[string]digest.Digest{}
		var b Builder
		for _, p := range rapid.SliceOfN(path, 0, 20).Draw(t, "paths") {
			d := digest.FromBytes([]byte(p))
			if b.File(p, d) == nil {
				files[p] = d
			}
		}
		tree, err := b.Build()
		require.NoError(t, err)
		require.Equal(t, files, maps.Collect(tree.Files()))

		var again Builder
		for _, p := range rapid.Permutation(slices.Sorted(maps.Keys(files))).Draw(t, "order") {
			require.NoError(t, again.File(p, files[p]))
		}
		other, err := again.Build()
		require.NoError(t, err)
		requireSame(t, tree, other)

		cas := memory.New()
		require.NoError(t, tree.Put(t.Context(), cas))
		loaded, err := Load(t.Context(), cas, tree.Root())
		require.NoError(t, err)
		requireSame(t, tree, loaded)
	})
}
