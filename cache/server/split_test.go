package server_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/fastcdc"
	"github.com/pexpress/pexpress/cache/memory"
)

// chunksOf asks for the chunks of a blob in both ways, which must agree.
func chunksOf(t *testing.T, s *served, d digest.Digest) ([]digest.Digest, repb.ChunkingFunction_Value, error) {
	fn := d.Function()
	old, oldErr := s.cas.SplitBlob(t.Context(), &repb.SplitBlobRequest{DigestFunction: fn.Proto(), BlobDigest: d.Proto()})
	stream, err := s.cas.GetChunkMapping(t.Context(), &repb.GetChunkMappingRequest{DigestFunction: fn.Proto(), BlobDigest: d.Proto()})
	require.NoError(t, err)
	var all []digest.Digest
	var how repb.ChunkingFunction_Value
	for first := true; ; first = false {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			require.Error(t, oldErr)
			return nil, 0, err
		}
		if first {
			how = resp.GetChunkingFunction()
		}
		for _, p := range resp.GetChunkDigests() {
			c, err := fn.FromProto(p)
			require.NoError(t, err)
			all = append(all, c)
		}
	}
	require.NoError(t, oldErr)
	require.Len(t, old.GetChunkDigests(), len(all))
	require.Equal(t, old.GetChunkingFunction(), how)
	return all, how, nil
}

func join(t *testing.T, c cache.CAS, ds []digest.Digest) []byte {
	var b bytes.Buffer
	for _, d := range ds {
		part, err := cache.ReadBlob(t.Context(), c, d, 1<<30)
		require.NoError(t, err)
		b.Write(part)
	}
	return b.Bytes()
}

func TestSplit(t *testing.T) {
	for _, fn := range digest.Functions {
		s := serve(t)
		for _, n := range []int{0, 1, 100 << 10, 9 << 20} {
			data := random(uint64(n), n)
			d := store(t, s.store, fn, data)
			chunks, how, err := chunksOf(t, s, d)
			require.NoError(t, err)
			require.Equal(t, repb.ChunkingFunction_FAST_CDC_2020, how)
			require.True(t, bytes.Equal(data, join(t, s.store, chunks)))
			again, _, err := chunksOf(t, s, d)
			require.NoError(t, err)
			require.Equal(t, chunks, again)

			c, err := fastcdc.New(bytes.NewReader(data), fastcdc.Params{Average: 512 << 10})
			require.NoError(t, err)
			for _, want := range chunks {
				chunk, err := c.Next()
				require.NoError(t, err)
				require.Equal(t, want, fn.FromBytes(chunk), "cut as a client with the announced parameters cuts")
			}
		}
		gone := fn.FromBytes([]byte("gone"))
		_, _, err := chunksOf(t, s, gone)
		requireCode(t, codes.NotFound, err, gone.Hash())
	}
}

// TestSplitHealsItself: a mapping with a chunk missing is never answered.
func TestSplitHealsItself(t *testing.T) {
	m := memory.New()
	data := random(1, 5<<20)
	d := store(t, m, digest.SHA256, data)
	chunks, _, err := chunksOf(t, dial(t, m, m), d)
	require.NoError(t, err)
	fresh := memory.New()
	store(t, fresh, digest.SHA256, data)
	s := dial(t, fresh, m) // the ActionCache knows the mapping, the CAS has neither chunks nor mapping
	got, _, err := chunksOf(t, s, d)
	require.NoError(t, err)
	require.Equal(t, chunks, got)
	require.True(t, bytes.Equal(data, join(t, fresh, got)))
}

func TestSplice(t *testing.T) {
	for _, fn := range digest.Functions {
		for _, streamed := range []bool{false, true} {
			m := memory.New()
			s := dial(t, m, complete.New(m, m))
			a, b := store(t, m, fn, []byte("hello, ")), store(t, m, fn, []byte("world"))
			blob := fn.FromBytes([]byte("hello, worldhello, "))
			splice := func(blob digest.Digest, chunks ...digest.Digest) error {
				if streamed {
					reqs := []*repb.RegisterChunkMappingRequest{{DigestFunction: fn.Proto(), BlobDigest: blob.Proto()}}
					for _, c := range chunks {
						reqs = append(reqs, &repb.RegisterChunkMappingRequest{ChunkDigests: []*repb.Digest{c.Proto()}})
					}
					return register(t, s, reqs...)
				}
				req := &repb.SpliceBlobRequest{DigestFunction: fn.Proto(), BlobDigest: blob.Proto()}
				for _, c := range chunks {
					req.ChunkDigests = append(req.ChunkDigests, c.Proto())
				}
				_, err := s.cas.SpliceBlob(t.Context(), req)
				return err
			}
			requireCode(t, codes.InvalidArgument, splice(blob, a, b), "12 bytes together")
			requireCode(t, codes.InvalidArgument, splice(blob, a, b, a, b), "more bytes")
			requireCode(t, codes.InvalidArgument, splice(blob, a, a, b), blob.Hash())
			gone := fn.FromBytes([]byte("a lost part.")) // as long as what it stands for
			requireCode(t, codes.NotFound, splice(blob, gone, a), gone.Hash())
			missing, err := m.FindMissing(t.Context(), []digest.Digest{blob})
			require.NoError(t, err)
			require.Len(t, missing, 1, "nothing of it is visible")

			require.NoError(t, splice(blob, a, b, a))
			got, err := cache.ReadBlob(t.Context(), m, blob, 1<<20)
			require.NoError(t, err)
			require.Equal(t, "hello, worldhello, ", string(got))
			chunks, how, err := chunksOf(t, s, blob)
			require.NoError(t, err)
			require.Equal(t, []digest.Digest{a, b, a}, chunks, "as the client has cut it")
			require.Equal(t, repb.ChunkingFunction_UNKNOWN, how)
			require.NoError(t, splice(blob, a, b, a), "again")

			// Of a blob that came whole, chunks are believed only if they make it up.
			whole := store(t, m, fn, []byte("worldhello, "))
			requireCode(t, codes.InvalidArgument, splice(whole, a, b), whole.Hash())
			require.NoError(t, splice(whole, b, a))
			chunks, _, err = chunksOf(t, s, whole)
			require.NoError(t, err)
			require.Equal(t, []digest.Digest{b, a}, chunks)
		}
	}
	requireCode(t, codes.InvalidArgument, register(t, serve(t)), "before it named a blob")
}
