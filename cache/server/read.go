package server

import (
	"errors"
	"io"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/full"
)

// Read implements bspb.ByteStreamServer. The offset counts the blob's own bytes, also where they travel compressed.
func (s *server) Read(req *bspb.ReadRequest, stream bspb.ByteStream_ReadServer) error {
	r, err := readName(req.GetResourceName())
	if err != nil {
		return fail(err)
	}
	ctx := stream.Context()
	inst, err := s.instance(ctx, r.instance, Read)
	if err != nil {
		return err
	}
	d, offset, limit := r.digest, req.GetReadOffset(), req.GetReadLimit()
	switch {
	case limit < 0:
		return status.Errorf(codes.InvalidArgument, "limit %d of blob %s is negative", limit, d)
	case limit > 0 && r.zstd:
		return status.Errorf(codes.InvalidArgument, "blob %s cannot be read compressed with a limit: leave the limit out", d)
	case offset < 0 || offset > d.Size():
		return status.Errorf(codes.OutOfRange, "offset %d of blob %s", offset, d)
	}
	if r.zstd {
		return s.readZstd(stream, inst.CAS, d, offset)
	}
	rc, err := full.Of(inst.CAS).GetFrom(ctx, d, offset)
	if err != nil {
		return fail(stored(err))
	}
	defer rc.Close()
	var src io.Reader = rc
	// A limit that cuts nothing off is left out: the reader says whether the bytes are right only at their end.
	if limit > 0 && limit < d.Size()-offset {
		src = io.LimitReader(rc, limit)
	}
	return s.send(stream, src, d.Size()-offset)
}

// send streams at most about size bytes of src.
func (s *server) send(stream bspb.ByteStream_ReadServer, src io.Reader, size int64) error {
	for {
		p, err := s.budget.part(stream.Context(), max(size, 1)) // the last one only to learn that there is no more
		if err != nil {
			return err
		}
		n, err := src.Read(p.data)
		size -= int64(n)
		if p.data = p.data[:n]; n > 0 {
			if err := p.send(stream); err != nil {
				return err
			}
		} else {
			p.free()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fail(stored(err))
		}
	}
}

// readZstd streams a blob as zstd: as the CAS holds it, if it holds it so, and else compressed here.
func (s *server) readZstd(stream bspb.ByteStream_ReadServer, cas cache.CAS, d digest.Digest, offset int64) error {
	ctx := stream.Context()
	if g, ok := cas.(cache.ZstdGetter); ok && !d.IsEmpty() {
		rc, err := g.GetZstd(ctx, d, offset)
		if err == nil {
			defer rc.Close()
			return s.send(stream, rc, d.Size()+d.Size()/64+partSize) // what does not compress gets a little larger
		}
		if !errors.Is(err, cache.ErrNoZstd) {
			return fail(stored(err))
		}
	}
	rc, err := full.Of(cas).GetFrom(ctx, d, offset)
	if err != nil {
		return fail(stored(err))
	}
	defer rc.Close()
	// Together with what is on its way to the client: to ask for that later would be to wait for others who do the same.
	release, err := s.budget.take(ctx, min(encoderMemory, 2*d.Size()+smallChunk)+2*partSize)
	if err != nil {
		return err
	}
	defer release()
	// A failure of the source ends the stream before the frame does, so that nobody takes what was sent for the blob.
	out := sender{stream}
	if err := s.zstd.compress(out, rc); err != nil {
		return fail(stored(err))
	}
	return nil
}

// sender writes to a Read's stream.
type sender struct{ stream bspb.ByteStream_ReadServer }

func (s sender) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		m := newPart(int64(len(p)-sent), func() {})
		m.data = m.data[:copy(m.data, p[sent:])]
		n := len(m.data)
		if err := m.send(s.stream); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}
