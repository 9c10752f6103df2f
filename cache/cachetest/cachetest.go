// Package cachetest is the one conformance suite of the cache: every backend, every decorator and every pair of
// client and server runs it, for each digest function. A test of an implementation is a factory and one call.
package cachetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// content returns n bytes that depend on seed alone, the same in every run.
func content(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

// blobs returns n different blobs of the given size.
func blobs(fn digest.Function, seed uint64, n, size int) []cache.Blob {
	bs := make([]cache.Blob, n)
	for i := range bs {
		b := content(seed<<32+uint64(i), size)
		bs[i] = cache.Blob{Digest: fn.FromBytes(b), Data: b}
	}
	return bs
}

// digests returns the names of bs.
func digests(bs []cache.Blob) []digest.Digest {
	ds := make([]digest.Digest, len(bs))
	for i, b := range bs {
		ds[i] = b.Digest
	}
	return ds
}

func mustPut(t *testing.T, fn digest.Function, c cache.CAS, b []byte) digest.Digest {
	t.Helper()
	d := fn.FromBytes(b)
	require.NoError(t, c.Put(t.Context(), d, bytes.NewReader(b)))
	return d
}

// requireBlob checks that d can be read and is b.
func requireBlob(t *testing.T, c cache.CAS, d digest.Digest, b []byte) {
	t.Helper()
	rc, err := c.Get(t.Context(), d)
	require.NoError(t, err)
	got, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	require.True(t, bytes.Equal(b, got), "blob %s came back as other bytes", d)
}

// requireAbsent checks that d is a miss in every way.
func requireAbsent(t *testing.T, c cache.CAS, d digest.Digest) {
	t.Helper()
	require.ErrorIs(t, readAll(t.Context(), c, d), cache.ErrNotFound)
	missing, err := c.FindMissing(t.Context(), []digest.Digest{d})
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{d}, missing)
}

// readAll reads a blob to its end. A client that streams may learn only while it reads that a blob is absent.
func readAll(ctx context.Context, c cache.CAS, d digest.Digest) error {
	rc, err := c.Get(ctx, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = io.Copy(io.Discard, rc)
	return err
}

// canceled returns a context that has ended already.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
