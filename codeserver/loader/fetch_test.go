package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// partCAS has neither of two blobs: one is missing, the other never comes.
type partCAS struct {
	cache.CAS
	missing, never digest.Digest
}

func (c *partCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	switch d {
	case c.missing:
		return nil, cache.ErrNotFound
	case c.never:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return c.CAS.Get(ctx, d)
}

// TestMissingBesideLarge: that a small blob is not there is told without waiting for a large one.
func TestMissingBesideLarge(t *testing.T) {
	m := memory.New()
	large := strings.Repeat("x", smallBlob+1)
	root := makeTree(t, m, map[string]string{"large": large, "small": "small"})
	remote := &partCAS{m, digest.FromBytes([]byte("small")), digest.FromBytes([]byte(large))}
	l := open(t, t.TempDir(), remote)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, _, err := l.Load(ctx, root)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.NoError(t, ctx.Err())
}

// cutCAS loses the connection in the middle of large blobs.
type cutCAS struct{ cache.CAS }

func (c cutCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	rc, err := c.CAS.Get(ctx, d)
	if err != nil || d.Size() <= smallBlob {
		return rc, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(rc, 100), iotest.ErrReader(errors.New("connection reset"))), rc}, nil
}

// TestSaidOnce: a cache that is lost in the middle of a blob is told as the cause, once.
func TestSaidOnce(t *testing.T) {
	m := memory.New()
	root := makeTree(t, m, map[string]string{"large": strings.Repeat("x", smallBlob+1)})
	_, _, err := open(t, t.TempDir(), cutCAS{m}).Load(t.Context(), root)
	require.ErrorIs(t, err, ErrCache)
	require.Equal(t, 1, strings.Count(err.Error(), ErrCache.Error()), err)
	require.Equal(t, 1, strings.Count(err.Error(), "connection reset"), err)
}

// TestLargeDirectory loads a Directory that is not one of those which are held in memory.
func TestLargeDirectory(t *testing.T) {
	m := memory.New()
	files := map[string]string{}
	for i := range 3500 {
		files[fmt.Sprintf("pkg/module_%05d.py", i)] = fmt.Sprint(i % 7)
	}
	root := makeTree(t, m, files)
	_, st, err := open(t, t.TempDir(), m).Load(t.Context(), root)
	require.NoError(t, err)
	require.EqualValues(t, 2+7, st.Blobs)
	require.Greater(t, st.Bytes, int64(smallBlob))
}

// TestDamagedDirectories: all Directories that the host has are damaged, more than one load would meet one after the other.
func TestDamagedDirectories(t *testing.T) {
	m := memory.New()
	files := map[string]string{}
	for i := range 12 {
		files[fmt.Sprintf("p%d/x.py", i)] = fmt.Sprint(i)
	}
	root, dir := makeTree(t, m, files), t.TempDir()
	l := open(t, dir, m)
	tree, _, err := l.Load(t.Context(), root)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	n := 0
	for d := range tree.Blobs() {
		found, err := filepath.Glob(filepath.Join(dir, "blobs/cas/*", d.Hash()+"*"))
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.NoError(t, os.Chmod(found[0], 0o600))
		if n++; n%2 == 0 {
			require.NoError(t, os.Truncate(found[0], 0))
		} else {
			require.NoError(t, os.WriteFile(found[0], bytes.Repeat([]byte{'U'}, int(d.Size())), 0o600))
		}
	}
	l = open(t, dir, m)
	_, st, err := l.Load(t.Context(), root)
	require.NoError(t, err)
	require.EqualValues(t, 13, st.Blobs)
	require.NoError(t, l.Close())
	_, _, err = open(t, dir, nil).Load(t.Context(), root)
	require.NoError(t, err, "they are stored again")
}

// batchCAS reads many small blobs at once, and counts how often it is asked.
type batchCAS struct {
	*memory.Store
	one, many int
	cut       digest.Digest // with which the connection breaks
}

func (c *batchCAS) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	c.one++
	return c.Store.Get(ctx, d)
}

func (c *batchCAS) GetMany(ctx context.Context, ds []digest.Digest, each func(int, []byte, error)) error {
	c.many++
	lent := make([]byte, smallBlob)
	for i, d := range ds {
		if d == c.cut {
			return errors.New("connection reset")
		}
		data, err := cache.ReadBlob(ctx, c.Store, d, smallBlob)
		each(i, lent[:copy(lent, data)], err)
		clear(lent)
	}
	return nil
}

// TestAtOnce: a far cache is asked once for a level of Directories, and once for the files.
func TestAtOnce(t *testing.T) {
	remote := &batchCAS{Store: memory.New()}
	files := map[string]string{}
	for i := range 100 {
		files[fmt.Sprintf("a%d/b/f%d.py", i, i)] = fmt.Sprintf("X = %d\n", i)
	}
	root := makeTree(t, remote.Store, files)
	remote.cut = digest.FromBytes([]byte("X = 7\n"))
	l := open(t, t.TempDir(), remote)
	_, _, err := l.Load(t.Context(), root)
	require.ErrorIs(t, err, ErrCache)
	require.ErrorContains(t, err, "connection reset")

	remote.cut, remote.one, remote.many = digest.Digest{}, 0, 0
	l = open(t, t.TempDir(), remote)
	tree, st, err := l.Load(t.Context(), root)
	require.NoError(t, err)
	require.Equal(t, root, tree.Root())
	require.Equal(t, [2]int{0, 4}, [2]int{remote.one, remote.many}, "three levels and the files")
	require.Equal(t, int64(1+100+100+100), st.Blobs)
	b, err := l.Read(t.Context(), tree, "a42/b/f42.py", 100)
	require.NoError(t, err)
	require.Equal(t, "X = 42\n", string(b))
}
