package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b) // never fails
	return b
}

// encoder is shared by the tests: each would take its time to start.
var encoder = sync.OnceValues(func() (*zstd.Encoder, error) { return zstd.NewWriter(nil) })

func compress(t *testing.T, data string) string {
	enc, err := encoder()
	require.NoError(t, err)
	return string(enc.EncodeAll([]byte(data), nil))
}

func decompress(t *testing.T, frames string) string {
	dec, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer dec.Close()
	b, err := dec.DecodeAll([]byte(frames), nil)
	require.NoError(t, err)
	return string(b)
}

// bomb is a frame of 17 bytes that declares 2 GiB of content, in a window of as much.
var bomb = string([]byte{
	0x28, 0xb5, 0x2f, 0xfd, // magic
	0xe0,                               // a single segment, content size in eight bytes
	0, 0, 0, 0x80, 0, 0, 0, 0, 3, 0, 0, // 2 GiB; a last, empty block
	0,
})

func TestZstdBatches(t *testing.T) {
	for _, fn := range digest.Functions {
		s := serve(t)
		text, tiny, noise := strings.Repeat("text ", 10_000), "tiny", string(random(1, 5000))
		sum := func(data string) *repb.Digest { return fn.FromBytes([]byte(data)).Proto() }
		req := func(d *repb.Digest, data string) *repb.BatchUpdateBlobsRequest_Request {
			return &repb.BatchUpdateBlobsRequest_Request{Digest: d, Data: []byte(data), Compressor: repb.Compressor_ZSTD}
		}
		deflate := req(sum("x"), "x")
		deflate.Compressor = repb.Compressor_DEFLATE
		two := compress(t, tiny[:2]) + compress(t, tiny[2:])
		resp, err := s.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{
			DigestFunction: fn.Proto(),
			Requests: []*repb.BatchUpdateBlobsRequest_Request{
				req(sum(text), compress(t, text)), req(sum(tiny), two), req(sum(noise), compress(t, noise)),
				req(sum("bomb"), bomb), req(sum("short"), compress(t, "shor")), req(sum("long"), compress(t, text)),
				req(sum("other"), compress(t, "othar")), req(sum("plain"), "plain"), deflate,
			},
		})
		require.NoError(t, err)
		for i, r := range resp.GetResponses() {
			want := codes.OK
			if i > 2 {
				want = codes.InvalidArgument
			}
			require.Equal(t, want, status.FromProto(r.GetStatus()).Code(), "%d: %s", i, r.GetStatus())
		}
		for _, acceptable := range [][]repb.Compressor_Value{nil, {repb.Compressor_ZSTD}, {repb.Compressor_DEFLATE}} {
			got, err := s.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{
				DigestFunction: fn.Proto(), AcceptableCompressors: acceptable, Digests: []*repb.Digest{sum(text), sum(tiny), sum(noise), sum("gone")},
			})
			require.NoError(t, err)
			for i, want := range []string{text, tiny, noise} {
				r := got.GetResponses()[i]
				require.Zero(t, r.GetStatus().GetCode())
				data := string(r.GetData())
				// Only what becomes smaller by it is compressed, and only if the client has said that it may be.
				require.Equal(t, i == 0 && len(acceptable) > 0 && acceptable[0] == repb.Compressor_ZSTD, r.GetCompressor() == repb.Compressor_ZSTD)
				if r.GetCompressor() == repb.Compressor_ZSTD {
					require.Less(t, len(data), len(want))
					data = decompress(t, data)
				}
				require.True(t, want == data)
			}
			require.Equal(t, int32(codes.NotFound), got.GetResponses()[3].GetStatus().GetCode())
		}
	}
}

func TestZstdBatchIsBounded(t *testing.T) {
	s := serve(t)
	huge, err := digest.New(of("x").Hash(), 1<<40)
	require.NoError(t, err)
	_, err = s.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{
		{Digest: huge.Proto(), Data: []byte(bomb), Compressor: repb.Compressor_ZSTD},
	}})
	requireCode(t, codes.InvalidArgument, err, "use ByteStream")
}

// frames is a CAS that holds blobs as zstd frames.
type frames struct {
	*memory.Store
	t *testing.T
}

func (f frames) GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	b, err := cache.ReadBlob(ctx, f.Store, d, 1<<30)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for part := range bytes.SplitAfterSeq(b[offset:], []byte("\n")) {
		out.WriteString(compress(f.t, string(part)))
	}
	return io.NopCloser(&out), nil
}

// TestZstdRead reads compressed, from a CAS that holds frames and from one that does not.
func TestZstdRead(t *testing.T) {
	m := memory.New()
	for what, s := range map[string]*served{"compressed here": dial(t, m, nil), "passed through": dial(t, frames{m, t}, nil)} {
		t.Run(what, func(t *testing.T) {
			for _, fn := range digest.Functions {
				text := strings.Repeat("some line\n", 50) + string(random(2, 300<<10)) + strings.Repeat("another line\n", 50)
				for _, data := range []string{text, "x", ""} {
					d := fn.FromBytes([]byte(data))
					require.NoError(t, m.Put(t.Context(), d, strings.NewReader(data)))
					for _, offset := range []int64{0, 1, d.Size() / 2, d.Size()} {
						if offset > d.Size() {
							continue
						}
						got, err := readAll(t, s, "i/compressed-blobs/zstd/"+d.String(), offset, 0)
						require.NoError(t, err)
						require.True(t, data[offset:] == decompress(t, got), "%s from %d", d, offset)
					}
				}
			}
			_, err := readAll(t, s, "compressed-blobs/zstd/"+of("gone").String(), 0, 0)
			requireCode(t, codes.NotFound, err, of("gone").Hash())
			_, err = readAll(t, s, "compressed-blobs/zstd/"+of("x").String(), 2, 0)
			requireCode(t, codes.OutOfRange, err, of("x").Hash())
		})
	}
}

// TestZstdWrite counts the compressed bytes in committed_size, and says -1 of a blob that is there.
func TestZstdWrite(t *testing.T) {
	for _, fn := range digest.Functions {
		s := serve(t)
		noise := random(3, 21<<20)
		for _, data := range []string{"small", strings.Repeat("text ", 100_000), string(noise[:5<<20]), string(noise)} {
			d := fn.FromBytes([]byte(data))
			name := "i/uploads/u/compressed-blobs/zstd/" + d.String()
			sent := compress(t, data)
			resp, err := upload(t, s, name, sent)
			require.NoError(t, err)
			require.Equal(t, int64(len(sent)), resp.GetCommittedSize())
			got, err := cache.ReadBlob(t.Context(), s.store, d, 1<<30)
			require.NoError(t, err)
			require.True(t, data == string(got))
			resp, err = upload(t, s, name, sent)
			require.NoError(t, err)
			require.Equal(t, int64(-1), resp.GetCommittedSize())
		}
		resp, err := upload(t, s, "uploads/u/compressed-blobs/zstd/"+fn.FromBytes(nil).String(), compress(t, ""))
		require.NoError(t, err)
		require.Equal(t, int64(-1), resp.GetCommittedSize(), "the empty blob is always there")
	}
}

func TestZstdWriteRefuses(t *testing.T) {
	s := serve(t)
	large := strings.Repeat("large ", 3<<20)
	for _, right := range []string{"hello", large} {
		d := of(right)
		frame := compress(t, right)
		for what, sent := range map[string]string{
			"other bytes": compress(t, "x"+right[1:]), "too short": compress(t, right[1:]), "too long": compress(t, right+"x"),
			"not zstd": right, "cut off": frame[:len(frame)-1], "nothing": "", "a bomb": bomb, "garbage behind": frame + "garbage",
		} {
			_, err := upload(t, s, "uploads/u/compressed-blobs/zstd/"+d.String(), sent)
			requireCode(t, codes.InvalidArgument, err, "")
			missing, err := s.store.FindMissing(t.Context(), []digest.Digest{d})
			require.NoError(t, err)
			require.Len(t, missing, 1, what)
		}
		_, err := send(t, s, &bspb.WriteRequest{ResourceName: "uploads/u/compressed-blobs/zstd/" + d.String(), WriteOffset: 1, Data: []byte("x")})
		requireCode(t, codes.InvalidArgument, err, "cannot be resumed")
		_, err = send(t, s, &bspb.WriteRequest{ResourceName: "uploads/u/compressed-blobs/zstd/" + d.String(), Data: []byte(frame)})
		requireCode(t, codes.InvalidArgument, err, "without finish_write")
	}
	// Empty frames, without end: the blob never grows.
	stream, err := s.bytes.Write(t.Context())
	require.NoError(t, err)
	empty := strings.Repeat(compress(t, ""), 20_000)
	for at := int64(0); ; at += int64(len(empty)) {
		err := stream.Send(&bspb.WriteRequest{ResourceName: "uploads/u/compressed-blobs/zstd/" + of("one byte less than this").String(), WriteOffset: at, Data: []byte(empty)})
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	_, err = stream.CloseAndRecv()
	requireCode(t, codes.InvalidArgument, err, "more than")
}

// TestBombsCostLittle sends frames of 17 bytes that declare 2 GiB, in every way that there is.
func TestBombsCostLittle(t *testing.T) {
	require.Len(t, bomb, 17)
	s := serve(t)
	huge, err := digest.New(of("x").Hash(), 2<<30)
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		for _, d := range []digest.Digest{of("x"), huge} {
			_, err := upload(t, s, "uploads/u/compressed-blobs/zstd/"+d.String(), bomb)
			require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
		}
		_, err := s.cas.BatchUpdateBlobs(t.Context(), &repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{
			{Digest: of("x").Proto(), Data: []byte(bomb), Compressor: repb.Compressor_ZSTD},
		}})
		require.NoError(t, err)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "all of them together")
}
