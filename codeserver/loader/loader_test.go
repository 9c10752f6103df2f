package loader

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
)

// slowCAS counts what is read, and waits where it is told to.
type slowCAS struct {
	cache.CAS
	gets atomic.Int64
	gate chan struct{}
}

func (c *slowCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	c.gets.Add(1)
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return c.CAS.Get(ctx, d)
}

func open(t *testing.T, dir string, remote cache.CAS) *Loader {
	l, err := New(dir, func(context.Context) (cache.CAS, io.Closer, error) {
		if remote == nil {
			return nil, nil, errors.New("no cache")
		}
		return remote, io.NopCloser(nil), nil
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func makeTree(t *testing.T, cas cache.CAS, files map[string]string) digest.Digest {
	var b merkle.Builder
	for p, c := range files {
		d, err := cache.PutBlob(t.Context(), cas, []byte(c))
		require.NoError(t, err)
		require.NoError(t, b.File(p, d))
	}
	tree, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, tree.Put(t.Context(), cas))
	return tree.Root()
}

func keep(t *testing.T, l *Loader, roots ...digest.Digest) {
	remove, err := l.Keep(t.Context(), roots)
	require.NoError(t, err)
	require.NoError(t, remove())
	left, err := os.ReadDir(filepath.Join(l.dir, "tmp"))
	require.NoError(t, err)
	require.Empty(t, left)
}

var every = Selection{Name: "all", Want: func(string) bool { return true }}

// TestLoadOnce loads two trees that differ in one file: only what differs travels, once for all who ask, and not at all
// after a restart without the cache.
func TestLoadOnce(t *testing.T) {
	remote := &slowCAS{CAS: memory.New(), gate: make(chan struct{})}
	one := makeTree(t, remote, map[string]string{"a/x.py": "x", "a/y.py": "y", "b/z.py": "z"})
	two := makeTree(t, remote, map[string]string{"a/x.py": "x", "a/y.py": "y", "b/z.py": "changed"})
	dir := t.TempDir()
	l := open(t, dir, remote)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_, _, err := l.Load(t.Context(), one)
			require.NoError(t, err)
		})
	}
	close(remote.gate)
	wg.Wait()
	require.EqualValues(t, 6, remote.gets.Load(), "three Directories and three files")
	tree, st, err := l.Load(t.Context(), two)
	require.NoError(t, err)
	require.EqualValues(t, 3, st.Blobs, "the root, b and z.py")
	made, err := l.Dir(t.Context(), tree, every, digest.Digest{})
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(made, "b/z.py"))
	require.NoError(t, err)
	require.Equal(t, "changed", string(b))

	require.NoError(t, l.Close())
	l = open(t, dir, nil)
	_, st, err = l.Load(t.Context(), one)
	require.NoError(t, err)
	require.Zero(t, st)
	_, _, err = l.Load(t.Context(), digest.FromBytes([]byte("none")))
	require.ErrorIs(t, err, ErrCache)
}

// TestAbandoned has the first of two that ask for a tree give up.
func TestAbandoned(t *testing.T) {
	remote := &slowCAS{CAS: memory.New(), gate: make(chan struct{})}
	root := makeTree(t, remote, map[string]string{"x": "x"})
	l := open(t, t.TempDir(), remote)
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error), make(chan error)
	go func() {
		_, _, err := l.Load(ctx, root)
		first <- err
	}()
	for remote.gets.Load() == 0 {
	}
	go func() {
		_, _, err := l.Load(t.Context(), root)
		second <- err
	}()
	_, err := l.Keep(t.Context(), nil)
	require.ErrorIs(t, err, ErrBusy)
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	close(remote.gate)
	require.NoError(t, <-second)
}

// lyingCAS has other bytes than it was asked for.
type lyingCAS struct{ cache.CAS }

func (c lyingCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	rc, err := c.CAS.Get(ctx, d)
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(rc, 0), zeros(d.Size())), rc}, err
}

func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestLies refuses a cache's wrong bytes, and keeps none of them.
func TestLies(t *testing.T) {
	good := memory.New()
	root := makeTree(t, good, map[string]string{"x": "x"})
	dir := t.TempDir()
	l := open(t, dir, lyingCAS{good})
	_, _, err := l.Load(t.Context(), root)
	require.ErrorIs(t, err, ErrCache)
	require.NoError(t, l.Close())
	l = open(t, dir, good)
	_, _, err = l.Load(t.Context(), root)
	require.NoError(t, err)
}

// TestKeep deletes all that no kept tree needs, what a killed process left included.
func TestKeep(t *testing.T) {
	remote := memory.New()
	one := makeTree(t, remote, map[string]string{"a/x.py": "x", "a/y.py": "one"})
	two := makeTree(t, remote, map[string]string{"a/x.py": "x", "a/y.py": "two"})
	dir := t.TempDir()
	l := open(t, dir, remote)
	for _, root := range []digest.Digest{one, two} {
		tree, _, err := l.Load(t.Context(), root)
		require.NoError(t, err)
		_, err = l.Dir(t.Context(), tree, every, one)
		require.NoError(t, err)
	}
	orphan, err := cache.PutBlob(t.Context(), l.local, []byte("fetched for a tree that never was whole"))
	require.NoError(t, err)
	keep(t, l, two)
	dirs, err := os.ReadDir(filepath.Join(dir, "trees"))
	require.NoError(t, err)
	require.Len(t, dirs, 1)
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/cas/*/*"))
	require.NoError(t, err)
	require.Len(t, blobs, 4, "two Directories and two files")
	_, err = l.local.Get(t.Context(), orphan)
	require.ErrorIs(t, err, cache.ErrNotFound)
	_, st, err := l.Load(t.Context(), one)
	require.NoError(t, err)
	require.EqualValues(t, 3, st.Blobs, "x.py is still here")
}

// TestChanged has a version write over its own files: the next start gets what the digest names, and what was written is
// still there beside it.
func TestChanged(t *testing.T) {
	remote := memory.New()
	root := makeTree(t, remote, map[string]string{"a/x.py": "x = 1", "a/y.py": "y"})
	l := open(t, t.TempDir(), remote)
	tree, _, err := l.Load(t.Context(), root)
	require.NoError(t, err)
	dir, err := l.Dir(t.Context(), tree, every, digest.Digest{})
	require.NoError(t, err)
	file := filepath.Join(dir, "a/x.py")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a/log"), []byte("beside"), 0o600))
	again, err := l.Dir(t.Context(), tree, every, digest.Digest{})
	require.NoError(t, err)
	require.Equal(t, dir, again)
	require.FileExists(t, filepath.Join(dir, "a/log"), "a file beside them changes none of them")

	require.NoError(t, os.Chmod(file, 0o755))
	require.NoError(t, os.WriteFile(file, []byte("x = 2"), 0o755))
	_, err = l.Dir(t.Context(), tree, every, digest.Digest{})
	require.NoError(t, err)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "x = 1", string(b))
	b, err = os.ReadFile(filepath.Join(dir+"-changed", "a/x.py"))
	require.NoError(t, err)
	require.Equal(t, "x = 2", string(b))
	keep(t, l)
	require.NoDirExists(t, dir+"-changed", "it goes with its tree")
}

// TestShared makes the directory of a second version: files that are the same are those of the first, but for what that
// has written over, and for data when nothing but its mode would protect it.
func TestShared(t *testing.T) {
	remote := memory.New()
	first := map[string]string{"a/x.py": "x = 1", "a/y.py": "y = 1", "a/z.py": "z = 1", "b/w.py": "w = 1", "b/data.db": "data", "c/v.py": "v = 1"}
	second := maps.Clone(first)
	second["a/x.py"] = "x = 2"
	second["d/new.py"] = "new"
	delete(second, "a/z.py")
	one, two := makeTree(t, remote, first), makeTree(t, remote, second)
	l := open(t, t.TempDir(), remote)
	dir := func(root, like digest.Digest) string {
		tree, _, err := l.Load(t.Context(), root)
		require.NoError(t, err)
		dir, err := l.Dir(t.Context(), tree, every, like)
		require.NoError(t, err)
		return dir
	}
	old := dir(one, digest.Digest{})
	require.NoError(t, os.Mkdir(filepath.Join(old, "a/__pycache__"), 0o755))
	for _, module := range []string{"x", "y", "z"} {
		require.NoError(t, os.WriteFile(filepath.Join(old, "a/__pycache__", module+".cpython-311.pyc"), []byte(module), 0o644))
	}
	for _, other := range []string{"y.1.pyc", "y.cpython-311.opt-3.pyc", "y.pyc", "y.cpython-311.pyc.1234"} { // what no Python writes, or not yet
		require.NoError(t, os.WriteFile(filepath.Join(old, "a/__pycache__", other), nil, 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(old, "a/__pycache__/y.pypy310.opt-1.pyc"), nil, 0o644))
	// What versions do that may write to their own files: in place, and a directory that is another by now.
	require.NoError(t, os.Chmod(filepath.Join(old, "b/w.py"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(old, "b/w.py"), []byte("w = 9"), 0o755))
	require.NoError(t, os.Rename(filepath.Join(old, "c"), filepath.Join(old, "elsewhere")))
	require.NoError(t, os.Symlink("elsewhere", filepath.Join(old, "c")))

	made := dir(two, one)
	for path, content := range second {
		b, err := os.ReadFile(filepath.Join(made, path))
		require.NoError(t, err)
		require.Equal(t, content, string(b), path)
	}
	require.NoFileExists(t, filepath.Join(made, "a/z.py"))
	shared := func(path string) bool {
		x, err := os.Stat(filepath.Join(old, path))
		require.NoError(t, err)
		y, err := os.Stat(filepath.Join(made, path))
		require.NoError(t, err)
		return os.SameFile(x, y)
	}
	require.True(t, shared("a/y.py"))
	require.False(t, shared("a/x.py"))
	require.False(t, shared("b/w.py"))
	require.False(t, shared("c/v.py"))
	require.Equal(t, os.Geteuid() != 0, shared("b/data.db"))
	compiled, err := filepath.Glob(filepath.Join(made, "a/__pycache__/*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(made, "a/__pycache__/y.cpython-311.pyc"), filepath.Join(made, "a/__pycache__/y.pypy310.opt-1.pyc")}, compiled)

	// Written over later, a shared file harms neither the store nor the next start.
	require.NoError(t, os.Chmod(filepath.Join(old, "a/y.py"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(old, "a/y.py"), []byte("y = 9"), 0o755))
	b, err := cache.ReadBlob(t.Context(), l.local, digest.FromBytes([]byte("y = 1")), 100)
	require.NoError(t, err)
	require.Equal(t, "y = 1", string(b))
	again := dir(two, one)
	b, err = os.ReadFile(filepath.Join(again, "a/y.py"))
	require.NoError(t, err)
	require.Equal(t, "y = 1", string(b))
	require.False(t, shared("a/y.py"))
}

// TestLost has the host lose a blob that it had: what is made of a tree heals from the cache.
func TestLost(t *testing.T) {
	remote := memory.New()
	one := makeTree(t, remote, map[string]string{"a/x.py": "x", "b/y.py": "y"})
	two := makeTree(t, remote, map[string]string{"a/x.py": "x", "b/y.py": "y", "z.py": "z"})
	dir := t.TempDir()
	l := open(t, dir, remote)
	_, _, err := l.Load(t.Context(), one)
	require.NoError(t, err)
	lost, err := filepath.Glob(filepath.Join(dir, "blobs/cas/*", digest.FromBytes([]byte("y")).Hash()+"-*"))
	require.NoError(t, err)
	require.Len(t, lost, 1)
	require.NoError(t, os.Remove(lost[0]))
	tree, _, err := l.Load(t.Context(), two)
	require.NoError(t, err)
	made, err := l.Dir(t.Context(), tree, every, one)
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(made, "b/y.py"))
	require.FileExists(t, lost[0])
}
