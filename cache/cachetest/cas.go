package cachetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// TestCAS checks that what newCAS returns keeps every promise of cache.CAS, for blobs named by sha256. Each subtest calls
// newCAS once.
func TestCAS(t *testing.T, newCAS func(t *testing.T) cache.CAS) {
	TestCASWith(t, digest.SHA256, newCAS)
}

// TestCASWith is TestCAS for blobs named by fn.
func TestCASWith(t *testing.T, fn digest.Function, newCAS func(t *testing.T) cache.CAS) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, digest.Function, cache.CAS)
	}{
		{"round trip", testRoundTrip},
		{"slow writer", testSlowWriter},
		{"wrong content", testWrongContent},
		{"failing reader", testFailingReader},
		{"not found", testNotFound},
		{"no digest", testNoDigest},
		{"empty blob", testEmptyBlob},
		{"put again", testPutAgain},
		{"find missing", testFindMissing},
		{"concurrent puts of one blob", testConcurrentPuts},
		{"many small blobs", testManySmall},
		{"put all", testPutAll},
		{"find by hash", testFindHash},
		{"get all", testGetAll},
		{"parts", testParts},
		{"frames", testFrames},
		{"closed early", testClosedEarly},
		{"canceled", testCanceled},
		{"canceled while putting", testCanceledPut},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, fn, newCAS(t)) })
	}
}

func testRoundTrip(t *testing.T, fn digest.Function, c cache.CAS) {
	for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 5 << 20} {
		b := content(1, size)
		requireBlob(t, c, mustPut(t, fn, c, b), b)
	}
}

func testSlowWriter(t *testing.T, fn digest.Function, c cache.CAS) {
	b := content(2, 3000)
	d := fn.FromBytes(b)
	require.NoError(t, c.Put(t.Context(), d, iotest.OneByteReader(bytes.NewReader(b))))
	rc, err := c.Get(t.Context(), d)
	require.NoError(t, err)
	defer rc.Close()
	got, err := io.ReadAll(iotest.OneByteReader(rc))
	require.NoError(t, err)
	require.Equal(t, b, got)
}

func testWrongContent(t *testing.T, fn digest.Function, c cache.CAS) {
	for _, size := range []int{1, 1000, 3 << 20} {
		right := content(3, size)
		d := fn.FromBytes(right)
		flipped := bytes.Clone(right)
		flipped[size/2] ^= 1
		for name, wrong := range map[string][]byte{
			"other": flipped, "short": right[:size-1], "long": append(bytes.Clone(right), 0), "none": nil,
		} {
			err := c.Put(t.Context(), d, bytes.NewReader(wrong))
			require.ErrorIs(t, err, digest.ErrMismatch, "%s content, size %d", name, size)
			require.ErrorContains(t, err, d.Hash(), "the error names the blob")
			requireAbsent(t, c, d)
		}
		require.NoError(t, c.Put(t.Context(), d, bytes.NewReader(right)), "a refused blob can be put rightly")
		requireBlob(t, c, d, right)
	}
}

func testFailingReader(t *testing.T, fn digest.Function, c cache.CAS) {
	// An unexpected EOF is what a source says whose own source ended: an error like any other, and no end.
	for _, broken := range []error{errors.New("the source broke"), io.ErrUnexpectedEOF} {
		for _, size := range []int{100 << 10, 3 << 20} {
			b := content(4, size)
			d := fn.FromBytes(b)
			r := io.MultiReader(bytes.NewReader(b[:size-30<<10]), iotest.ErrReader(broken))
			require.ErrorIs(t, c.Put(t.Context(), d, r), broken)
			requireAbsent(t, c, d)
		}
	}
}

func testNotFound(t *testing.T, fn digest.Function, c cache.CAS) {
	stored := mustPut(t, fn, c, content(5, 500))
	requireAbsent(t, c, fn.FromBytes(content(6, 500)))
	// The size is part of the name: the right hash with another size names nothing.
	other, err := fn.New(stored.Hash(), 499)
	require.NoError(t, err)
	requireAbsent(t, c, other)
	requireBlob(t, c, stored, content(5, 500))
}

func testNoDigest(t *testing.T, fn digest.Function, c cache.CAS) {
	require.Error(t, readAll(t.Context(), c, digest.Digest{}))
	require.Error(t, c.Put(t.Context(), digest.Digest{}, bytes.NewReader(nil)))
}

func testEmptyBlob(t *testing.T, fn digest.Function, c cache.CAS) {
	empty := fn.FromBytes(nil)
	requireBlob(t, c, empty, []byte{})
	missing, err := c.FindMissing(t.Context(), []digest.Digest{empty})
	require.NoError(t, err)
	require.Empty(t, missing)
	require.Equal(t, empty, mustPut(t, fn, c, nil))
	requireBlob(t, c, empty, []byte{})
}

func testPutAgain(t *testing.T, fn digest.Function, c cache.CAS) {
	b := content(7, 2000)
	d := mustPut(t, fn, c, b)
	require.Equal(t, d, mustPut(t, fn, c, b))
	requireBlob(t, c, d, b)
}

func testFindMissing(t *testing.T, fn digest.Function, c cache.CAS) {
	empty := fn.FromBytes(nil)
	bs := blobs(fn, 8, 6, 100)
	ds := digests(bs)
	for _, i := range []int{1, 4} {
		mustPut(t, fn, c, bs[i].Data)
	}
	ask := []digest.Digest{ds[5], ds[1], empty, ds[0], ds[5], ds[4], ds[3], ds[0], ds[2]}
	missing, err := c.FindMissing(t.Context(), ask)
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{ds[5], ds[0], ds[3], ds[2]}, missing)

	missing, err = c.FindMissing(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, missing)
}

func testConcurrentPuts(t *testing.T, fn digest.Function, c cache.CAS) {
	b := content(9, 300<<10)
	d := fn.FromBytes(b)
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			if err := c.Put(t.Context(), d, bytes.NewReader(b)); err != nil {
				return err
			}
			return readAll(t.Context(), c, d)
		})
	}
	require.NoError(t, g.Wait())
	requireBlob(t, c, d, b)
}

func testManySmall(t *testing.T, fn digest.Function, c cache.CAS) {
	bs := blobs(fn, 10, 400, 64)
	var g errgroup.Group
	g.SetLimit(16)
	for _, b := range bs {
		g.Go(func() error { return c.Put(t.Context(), b.Digest, bytes.NewReader(b.Data)) })
	}
	require.NoError(t, g.Wait())
	requireAll(t, c, bs)
}

func testPutAll(t *testing.T, fn digest.Function, c cache.CAS) {
	empty := fn.FromBytes(nil)
	bs := blobs(fn, 11, 300, 200)
	mustPut(t, fn, c, bs[7].Data)
	twice := append(append([]cache.Blob{{Digest: empty}}, bs...), bs[3])
	require.NoError(t, cache.PutAll(t.Context(), c, twice))
	requireAll(t, c, bs)
	require.NoError(t, cache.PutAll(t.Context(), c, bs), "all of them again")
	require.NoError(t, cache.PutAll(t.Context(), c, nil))

	wrong := cache.Blob{Digest: fn.FromBytes(content(12, 10)), Data: content(13, 10)}
	require.ErrorIs(t, cache.PutAll(t.Context(), c, []cache.Blob{wrong}), digest.ErrMismatch)
	requireAbsent(t, c, wrong.Digest)
	require.Error(t, cache.PutAll(canceled(t), c, blobs(fn, 14, 3, 10)))
}

// testFindHash is for what is a cache.HashFinder.
func testFindHash(t *testing.T, fn digest.Function, c cache.CAS) {
	find := func(d digest.Digest) (digest.Digest, error) {
		got, ok, err := cache.FindHash(t.Context(), c, d.Function(), d.Sum())
		if !ok {
			t.Skip("it finds no blobs by hash")
		}
		return got, err
	}
	d := mustPut(t, fn, c, content(19, 700))
	got, err := find(d)
	require.NoError(t, err)
	require.Equal(t, d, got)
	_, err = find(fn.FromBytes(content(20, 700)))
	require.ErrorIs(t, err, cache.ErrNotFound)
	for _, other := range digest.Functions {
		if other != fn {
			_, err = find(other.FromSum(d.Sum(), d.Size()))
			require.ErrorIs(t, err, cache.ErrNotFound, "the same hash by another function is another's")
		}
	}
	got, err = find(fn.FromBytes(nil))
	require.NoError(t, err)
	require.True(t, got.IsEmpty(), "the empty blob is always there")
}

func requireAll(t *testing.T, c cache.CAS, bs []cache.Blob) {
	t.Helper()
	missing, err := c.FindMissing(t.Context(), digests(bs))
	require.NoError(t, err)
	require.Empty(t, missing)
	for _, b := range bs {
		requireBlob(t, c, b.Digest, b.Data)
	}
}

func testClosedEarly(t *testing.T, fn digest.Function, c cache.CAS) {
	b := content(15, 5<<20)
	d := mustPut(t, fn, c, b)
	for _, n := range []int64{0, 1, 200 << 10} {
		rc, err := c.Get(t.Context(), d)
		require.NoError(t, err)
		_, err = io.CopyN(io.Discard, rc, n)
		require.NoError(t, err)
		require.NoError(t, rc.Close())
	}
	requireBlob(t, c, d, b)
}

func testCanceled(t *testing.T, fn digest.Function, c cache.CAS) {
	d := mustPut(t, fn, c, content(16, 1000))
	fresh := content(17, 1000)
	ctx := canceled(t)
	err := readAll(ctx, c, d)
	require.Error(t, err)
	require.NotErrorIs(t, err, cache.ErrNotFound, "a canceled call is not a miss")
	require.Error(t, c.Put(ctx, fn.FromBytes(fresh), bytes.NewReader(fresh)))
	_, err = c.FindMissing(ctx, []digest.Digest{d})
	require.Error(t, err)
	requireAbsent(t, c, fn.FromBytes(fresh))
}

// testCanceledPut cancels a Put halfway. It may still succeed, but it must not say one thing and do another.
func testCanceledPut(t *testing.T, fn digest.Function, c cache.CAS) {
	b := content(18, 5<<20)
	d := fn.FromBytes(b)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &hookReader{r: bytes.NewReader(b), after: 1 << 20, hook: cancel}
	if err := c.Put(ctx, d, r); err != nil {
		requireAbsent(t, c, d)
		return
	}
	requireBlob(t, c, d, b)
}

// hookReader calls hook when more than after bytes were read.
type hookReader struct {
	r     io.Reader
	after int
	hook  func()
}

func (h *hookReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if h.after -= n; h.after < 0 {
		h.hook()
	}
	return n, err
}
