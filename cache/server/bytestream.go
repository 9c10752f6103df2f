package server

import (
	"context"
	"errors"
	"io"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/digest"
)

const chunk = 256 << 10

// Read implements bspb.ByteStreamServer.
func (s *server) Read(req *bspb.ReadRequest, stream bspb.ByteStream_ReadServer) error {
	d, err := readName(req.GetResourceName())
	if err != nil {
		return fail(err)
	}
	if req.GetReadLimit() < 0 {
		return status.Errorf(codes.InvalidArgument, "limit %d of blob %s is negative", req.GetReadLimit(), d)
	}
	if req.GetReadOffset() < 0 || req.GetReadOffset() > d.Size() {
		return status.Errorf(codes.OutOfRange, "offset %d of blob %s", req.GetReadOffset(), d)
	}
	rc, err := s.cas.Get(stream.Context(), d)
	if err != nil {
		return fail(stored(err))
	}
	defer rc.Close()
	if _, err := io.CopyN(io.Discard, rc, req.GetReadOffset()); err != nil {
		return fail(stored(err))
	}
	var r io.Reader = rc
	// A limit that cuts nothing off is left out: the reader says whether the bytes are right only at their end.
	if n := req.GetReadLimit(); n > 0 && n < d.Size()-req.GetReadOffset() {
		r = io.LimitReader(rc, n)
	}
	buf := make([]byte, min(chunk, max(d.Size(), 1)))
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := stream.Send(&bspb.ReadResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fail(stored(err))
		}
	}
}

// Write implements bspb.ByteStreamServer. A blob that is there already is answered with its whole size at once, as
// REAPI says. An upload that breaks off is forgotten, and starts anew at offset 0.
func (s *server) Write(stream bspb.ByteStream_WriteServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	d, err := writeName(first.GetResourceName())
	if err != nil {
		return fail(err)
	}
	missing, err := s.cas.FindMissing(stream.Context(), []digest.Digest{d})
	if err != nil {
		return fail(err)
	}
	if len(missing) > 0 && first.GetWriteOffset() != 0 {
		return status.Errorf(codes.InvalidArgument, "upload of %s begins at offset %d: nothing of it is kept, begin at 0", d, first.GetWriteOffset())
	}
	if len(missing) > 0 {
		r := &writeReader{stream: stream, d: d, msg: first}
		if err := s.cas.Put(stream.Context(), d, r); err != nil {
			return fail(err)
		}
		if !r.finished {
			if _, err := io.Copy(io.Discard, r); err != nil {
				return fail(err)
			}
		}
	}
	return stream.SendAndClose(&bspb.WriteResponse{CommittedSize: d.Size()})
}

// writeReader reads the data of a Write's messages.
type writeReader struct {
	stream   bspb.ByteStream_WriteServer
	d        digest.Digest
	msg      *bspb.WriteRequest
	offset   int64
	finished bool
}

func (r *writeReader) Read(p []byte) (int, error) {
	for {
		if len(r.msg.GetData()) > 0 {
			n := copy(p, r.msg.GetData())
			r.msg.Data = r.msg.Data[n:]
			r.offset += int64(n)
			return n, nil
		}
		if r.msg.GetFinishWrite() || r.finished {
			r.finished = true
			return 0, io.EOF
		}
		msg, err := r.stream.Recv()
		if errors.Is(err, io.EOF) {
			return 0, status.Errorf(codes.InvalidArgument, "upload of %s ended after %d bytes without finish_write", r.d, r.offset)
		}
		if err != nil {
			return 0, err
		}
		if msg.GetWriteOffset() != r.offset {
			return 0, status.Errorf(codes.InvalidArgument, "upload of %s goes on at offset %d, not %d", r.d, msg.GetWriteOffset(), r.offset)
		}
		if r.offset+int64(len(msg.GetData())) > r.d.Size() {
			return 0, status.Errorf(codes.InvalidArgument, "upload of %s has more bytes than that", r.d)
		}
		r.msg = msg
	}
}

// QueryWriteStatus implements bspb.ByteStreamServer.
func (s *server) QueryWriteStatus(ctx context.Context, req *bspb.QueryWriteStatusRequest) (*bspb.QueryWriteStatusResponse, error) {
	d, err := writeName(req.GetResourceName())
	if err != nil {
		return nil, fail(err)
	}
	missing, err := s.cas.FindMissing(ctx, []digest.Digest{d})
	if err != nil {
		return nil, fail(err)
	}
	if len(missing) == 0 {
		return &bspb.QueryWriteStatusResponse{CommittedSize: d.Size(), Complete: true}, nil
	}
	// What an upload that broke off has sent is not kept, so a client begins again.
	return &bspb.QueryWriteStatusResponse{}, nil
}
