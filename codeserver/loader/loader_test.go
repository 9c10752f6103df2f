package loader

import (
	"context"
	"errors"
	"io"
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
	require.ErrorIs(t, l.Keep(t.Context(), nil), ErrBusy)
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
	require.NoError(t, l.Keep(t.Context(), []digest.Digest{two}))
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
	require.NoError(t, l.Keep(t.Context(), nil))
	require.NoDirExists(t, dir+"-changed", "it goes with its tree")
}
