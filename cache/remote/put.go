package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/google/uuid"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Put implements cache.CAS.
func (c *Cache) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if d.IsEmpty() {
		return nil
	}
	if d.IsZero() {
		return fmt.Errorf("put blob: %w: no digest given", digest.ErrInvalid)
	}
	verified := digest.NewReader(io.NopCloser(r), d)
	if d.Size() > smallBlob {
		return c.putStream(ctx, d, verified)
	}
	b, err := io.ReadAll(verified)
	if err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	return c.PutMany(ctx, []cache.Blob{{Digest: d, Data: b}})
}

// maxBatch bounds an upload of several blobs, below what common servers take in one message.
const maxBatch = 2 << 20

// PutMany implements cache.BatchPutter.
func (c *Cache) PutMany(ctx context.Context, blobs []cache.Blob) error {
	// A request is about digests of one function.
	var batch []*repb.BatchUpdateBlobsRequest_Request
	var fn repb.DigestFunction_Value
	size := 0
	for _, b := range blobs {
		if b.Digest.IsZero() {
			return fmt.Errorf("put blob: %w: no digest given", digest.ErrInvalid)
		}
		if b.Digest.Function().FromBytes(b.Data) != b.Digest {
			return fmt.Errorf("put blob %s: %w", b.Digest, digest.ErrMismatch)
		}
		if len(b.Data) > smallBlob {
			if err := c.putStream(ctx, b.Digest, io.NopCloser(bytes.NewReader(b.Data))); err != nil {
				return err
			}
			continue
		}
		if f := functionOf(b.Digest); size+len(b.Data) > maxBatch || f != fn {
			if err := c.putBatch(ctx, fn, batch); err != nil {
				return err
			}
			batch, size, fn = nil, 0, f
		}
		r := &repb.BatchUpdateBlobsRequest_Request{Digest: b.Digest.Proto(), Data: b.Data}
		if c.zstd {
			if z := deflateAll(b.Data); len(z) < len(b.Data) {
				r.Data, r.Compressor = z, repb.Compressor_ZSTD
			}
		}
		batch = append(batch, r)
		size += len(b.Data) + 100 // the digest, and what frames it
	}
	return c.putBatch(ctx, fn, batch)
}

func (c *Cache) putBatch(ctx context.Context, fn repb.DigestFunction_Value, batch []*repb.BatchUpdateBlobsRequest_Request) error {
	if len(batch) == 0 {
		return nil
	}
	resp, err := c.sdk.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
		InstanceName: c.instance, DigestFunction: fn, Requests: batch,
	})
	if err != nil {
		return c.failed(fmt.Sprintf("put %d blobs", len(batch)), err)
	}
	if len(resp.GetResponses()) != len(batch) {
		return fmt.Errorf("put %d blobs: the cache answered for %d", len(batch), len(resp.GetResponses()))
	}
	for _, r := range resp.GetResponses() {
		if err := status.ErrorProto(r.GetStatus()); err != nil {
			return c.failed("put blob "+r.GetDigest().GetHash(), err)
		}
	}
	return nil
}

// putStream uploads a large blob. A server that has it already may answer before all is sent.
func (c *Cache) putStream(ctx context.Context, d digest.Digest, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.sdk.Write(ctx)
	if err != nil {
		return c.rpcError("put blob", d, err)
	}
	w := &streamWriter{stream: stream, name: c.name("uploads/"+uuid.NewString()+"/", d)}
	if c.zstd {
		err = deflate(w, r)
	} else {
		_, err = io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, chunk))
	}
	if err == nil {
		err = w.finish()
	}
	if err != nil && !errors.Is(err, errAnswered) {
		return c.rpcError("put blob", d, err)
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return c.rpcError("put blob", d, err)
	}
	switch n := resp.GetCommittedSize(); {
	case !c.zstd && n == d.Size():
	case c.zstd && (n == w.offset || n == -1 || n == d.Size()):
		// -1 says that the blob was there; some servers count its own bytes in place of those that were sent.
	default:
		return fmt.Errorf("put blob %s: the cache kept %d bytes of it", d, n)
	}
	return nil
}

// errAnswered says that the server has answered before all was sent.
var errAnswered = errors.New("the server has answered already")

// streamWriter sends what is written to it as a Write's messages. It holds the last one back: only when the source has
// ended it is known that all bytes were right, and a server must not see the end of an upload before that.
type streamWriter struct {
	stream bspb.ByteStream_WriteClient
	name   string
	held   []byte
	offset int64
}

func (w *streamWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(w.held) == chunk {
			if err := w.send(false); err != nil {
				return n - len(p), err
			}
		}
		if w.held == nil {
			w.held = make([]byte, 0, chunk)
		}
		k := min(len(p), chunk-len(w.held))
		w.held = append(w.held, p[:k]...)
		p = p[k:]
	}
	return n, nil
}

func (w *streamWriter) finish() error { return w.send(true) }

func (w *streamWriter) send(last bool) error {
	err := w.stream.Send(&bspb.WriteRequest{ResourceName: w.name, WriteOffset: w.offset, FinishWrite: last, Data: w.held})
	if errors.Is(err, io.EOF) {
		return errAnswered
	}
	w.offset += int64(len(w.held))
	w.held = w.held[:0]
	return err
}
