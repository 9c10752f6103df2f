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

	"github.com/pexpress/pexpress/cache"
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
		return io.NopCloser(bytes.NewReader(b)), nil
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
	var data []byte
	var failed error
	err := c.getBatch(ctx, []digest.Digest{d}, func(_ int, b []byte, err error) { data, failed = b, err })
	return data, errors.Join(err, failed)
}

// GetMany implements cache.BatchGetter.
func (c *Cache) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	var batch []digest.Digest
	var places []int
	size := int64(0)
	flush := func() error {
		err := c.getBatch(ctx, batch, func(i int, data []byte, err error) { each(places[i], data, err) })
		batch, places, size = nil, nil, 0
		return err
	}
	for i, d := range ds {
		switch {
		case d.IsEmpty():
			each(i, nil, nil)
			continue
		case d.Size() > smallBlob:
			data, err := cache.ReadBlob(ctx, c, d, d.Size())
			each(i, data, err)
			continue
		}
		// A request is about digests of one function.
		if len(batch) > 0 && (size+d.Size() > maxBatch || d.Function() != batch[0].Function()) {
			if err := flush(); err != nil {
				return err
			}
		}
		batch, places = append(batch, d), append(places, i)
		size += d.Size() + 100 // the digest, and what frames it
	}
	return flush()
}

// GetTree implements cache.TreeGetter.
func (c *Cache) GetTree(ctx context.Context, root digest.Digest, each func(*repb.Directory) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := repb.NewContentAddressableStorageClient(c.conn).GetTree(ctx, &repb.GetTreeRequest{
		InstanceName: c.instance, DigestFunction: functionOf(root), RootDigest: root.Proto(),
	})
	for err == nil {
		var resp *repb.GetTreeResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		for _, dir := range resp.GetDirectories() {
			if err := each(dir); err != nil {
				return err
			}
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return c.rpcError("tree", root, err)
}

// getBatch asks for small blobs at once. What it hands on has been verified.
func (c *Cache) getBatch(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	if len(ds) == 0 {
		return nil
	}
	req := &repb.BatchReadBlobsRequest{InstanceName: c.instance, DigestFunction: functionOf(ds[0])}
	places := map[digest.Digest][]int{} // answers come in any order
	for i, d := range ds {
		if places[d] == nil {
			req.Digests = append(req.Digests, d.Proto())
		}
		places[d] = append(places[d], i)
	}
	if c.zstd {
		req.AcceptableCompressors = []repb.Compressor_Value{repb.Compressor_ZSTD}
	}
	resp, err := c.sdk.BatchReadBlobs(ctx, req)
	if err != nil {
		return c.rpcError("blob", ds[0], err)
	}
	if n := len(resp.GetResponses()); n != len(req.Digests) {
		return fmt.Errorf("blob %s: the cache gave %d answers to %d questions", ds[0], n, len(req.Digests))
	}
	for _, r := range resp.GetResponses() {
		d, err := ds[0].Function().FromProto(r.GetDigest())
		if len(ds) == 1 {
			d, err = ds[0], nil // some servers do not say which one it is
		}
		if err != nil || places[d] == nil {
			return fmt.Errorf("blob %s: the cache answered with another one, %.100q", ds[0], r.GetDigest().GetHash())
		}
		data, err := c.answered(r, d)
		for n, i := range places[d] {
			lent := data
			if n+1 < len(places[d]) { // it is overwritten
				lent = bytes.Clone(data)
			}
			each(i, lent, err)
		}
		delete(places, d)
	}
	return nil
}

// answered returns what an answer to a batch holds, verified.
func (c *Cache) answered(r *repb.BatchReadBlobsResponse_Response, d digest.Digest) ([]byte, error) {
	if err := status.ErrorProto(r.GetStatus()); err != nil {
		return nil, c.rpcError("blob", d, err)
	}
	data := r.GetData()
	switch r.GetCompressor() {
	case repb.Compressor_IDENTITY:
	case repb.Compressor_ZSTD:
		var err error
		if data, err = inflateAll(data, d); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("blob %s: the cache answered with %s, which was not asked for", d, r.GetCompressor())
	}
	if got := d.Function().FromBytes(data); got != d {
		return nil, fmt.Errorf("blob %s: %w: got %s", d, digest.ErrMismatch, got)
	}
	return data, nil
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
