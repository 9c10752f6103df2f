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

// chunk is how many bytes a message of an upload carries.
const chunk = 256 << 10

// name returns a ByteStream resource name of d.
func (c *Cache) name(prefix string, d digest.Digest) string {
	n := prefix + "blobs/" + d.String()
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
		return nil, rpcError("blob", d, err)
	}
	// The first message tells whether the blob is there: Get says so, not the reader later.
	first, err := stream.Recv()
	if err != nil {
		cancel()
		return nil, rpcError("blob", d, err)
	}
	return digest.NewReader(&streamReader{stream: stream, data: first.GetData(), d: d, cancel: cancel}, d), nil
}

func (c *Cache) getSmall(ctx context.Context, d digest.Digest) ([]byte, error) {
	if d.IsEmpty() {
		return nil, nil
	}
	resp, err := c.sdk.BatchReadBlobs(ctx, &repb.BatchReadBlobsRequest{InstanceName: c.instance, Digests: []*repb.Digest{d.Proto()}})
	if err != nil {
		return nil, rpcError("blob", d, err)
	}
	if n := len(resp.GetResponses()); n != 1 {
		return nil, fmt.Errorf("blob %s: the cache gave %d answers to one question", d, n)
	}
	r := resp.GetResponses()[0]
	return r.GetData(), rpcError("blob", d, status.ErrorProto(r.GetStatus()))
}

// streamReader reads the data of a Read's messages.
type streamReader struct {
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
			return 0, rpcError("blob", r.d, err)
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
	var batch []*repb.BatchUpdateBlobsRequest_Request
	size := 0
	for _, b := range blobs {
		if digest.FromBytes(b.Data) != b.Digest {
			return fmt.Errorf("put blob %s: %w", b.Digest, digest.ErrMismatch)
		}
		if len(b.Data) > smallBlob {
			if err := c.putStream(ctx, b.Digest, io.NopCloser(bytes.NewReader(b.Data))); err != nil {
				return err
			}
			continue
		}
		if size+len(b.Data) > maxBatch {
			if err := c.putBatch(ctx, batch); err != nil {
				return err
			}
			batch, size = nil, 0
		}
		batch = append(batch, &repb.BatchUpdateBlobsRequest_Request{Digest: b.Digest.Proto(), Data: b.Data})
		size += len(b.Data) + 100 // the digest, and what frames it
	}
	return c.putBatch(ctx, batch)
}

func (c *Cache) putBatch(ctx context.Context, batch []*repb.BatchUpdateBlobsRequest_Request) error {
	if len(batch) == 0 {
		return nil
	}
	resp, err := c.sdk.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{InstanceName: c.instance, Requests: batch})
	if err != nil {
		return fmt.Errorf("put %d blobs: %w", len(batch), err)
	}
	if len(resp.GetResponses()) != len(batch) {
		return fmt.Errorf("put %d blobs: the cache answered for %d", len(batch), len(resp.GetResponses()))
	}
	for _, r := range resp.GetResponses() {
		if err := status.ErrorProto(r.GetStatus()); err != nil {
			return fmt.Errorf("put blob %s: %w", r.GetDigest().GetHash(), err)
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
		return rpcError("put blob", d, err)
	}
	name := c.name("uploads/"+uuid.NewString()+"/", d)
	buf := make([]byte, chunk)
	var offset int64
	for offset < d.Size() {
		n, err := io.ReadFull(r, buf[:min(chunk, d.Size()-offset)])
		if err != nil {
			return fmt.Errorf("put blob %s: %w", d, err)
		}
		last := offset+int64(n) == d.Size()
		if last {
			// The reader says only after its last byte whether all of them were right: ask before finishing.
			if _, err := io.ReadFull(r, make([]byte, 1)); !errors.Is(err, io.EOF) {
				return fmt.Errorf("put blob %s: %w", d, errors.Join(err, digest.ErrMismatch))
			}
		}
		err = stream.Send(&bspb.WriteRequest{ResourceName: name, WriteOffset: offset, FinishWrite: last, Data: buf[:n]})
		if errors.Is(err, io.EOF) {
			break // the server has answered already
		}
		if err != nil {
			return rpcError("put blob", d, err)
		}
		offset += int64(n)
	}
	resp, err := stream.CloseAndRecv()
	if err != nil {
		return rpcError("put blob", d, err)
	}
	if n := resp.GetCommittedSize(); n != d.Size() {
		return fmt.Errorf("put blob %s: the cache kept %d bytes of it", d, n)
	}
	return nil
}
