package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/digest"
)

// chunk is how many bytes a message of an upload carries.
const chunk = 256 << 10

// name returns a ByteStream resource name of d.
func (c *Cache) name(prefix string, d digest.Digest) string {
	n := prefix + "blobs/" + d.String()
	if c.zstd {
		n = prefix + "compressed-blobs/zstd/" + d.String()
	}
	if c.instance != "" {
		n = c.instance + "/" + n
	}
	return n
}

// Get implements cache.CAS.
func (c *Cache) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if d.Size() <= smallBlob {
		b, err := c.getSmall(ctx, d)
		if err != nil {
			return nil, err
		}
		return digest.NewReader(io.NopCloser(bytes.NewReader(b)), d), nil
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.sdk.Read(ctx, &bspb.ReadRequest{ResourceName: c.name("", d)})
	if err != nil {
		cancel()
		return nil, c.rpcError("blob", d, err)
	}
	// The first message tells whether the blob is there: Get says so, not the reader later.
	first, err := stream.Recv()
	if err != nil {
		cancel()
		return nil, c.rpcError("blob", d, err)
	}
	r := &streamReader{cache: c, stream: stream, data: first.GetData(), d: d, cancel: cancel}
	if c.zstd {
		inflated, err := inflate(r)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("blob %s: %w", d, err)
		}
		return digest.NewReader(inflated, d), nil
	}
	return digest.NewReader(r, d), nil
}

func (c *Cache) getSmall(ctx context.Context, d digest.Digest) ([]byte, error) {
	if d.IsEmpty() {
		return nil, nil
	}
	req := &repb.BatchReadBlobsRequest{
		InstanceName: c.instance, DigestFunction: functionOf(d), Digests: []*repb.Digest{d.Proto()},
	}
	if c.zstd {
		req.AcceptableCompressors = []repb.Compressor_Value{repb.Compressor_ZSTD}
	}
	resp, err := c.sdk.BatchReadBlobs(ctx, req)
	if err != nil {
		return nil, c.rpcError("blob", d, err)
	}
	if n := len(resp.GetResponses()); n != 1 {
		return nil, fmt.Errorf("blob %s: the cache gave %d answers to one question", d, n)
	}
	r := resp.GetResponses()[0]
	if err := status.ErrorProto(r.GetStatus()); err != nil {
		return nil, c.rpcError("blob", d, err)
	}
	switch r.GetCompressor() {
	case repb.Compressor_IDENTITY:
		return r.GetData(), nil
	case repb.Compressor_ZSTD:
		return inflateAll(r.GetData(), d)
	}
	return nil, fmt.Errorf("blob %s: the cache answered with %s, which was not asked for", d, r.GetCompressor())
}

// streamReader reads the data of a Read's messages.
type streamReader struct {
	cache  *Cache
	stream bspb.ByteStream_ReadClient
	data   []byte
	d      digest.Digest
	cancel context.CancelFunc
}

func (r *streamReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 {
		msg, err := r.stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, r.cache.rpcError("blob", r.d, err)
		}
		r.data = msg.GetData()
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (r *streamReader) Close() error {
	r.cancel()
	return nil
}
