package server

import (
	"bytes"
	"context"
	"errors"
	"io"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Write implements bspb.ByteStreamServer. A blob that is there already is answered at once, as REAPI says: with its whole
// size, or with -1 if the upload is compressed. An uncompressed upload that breaks off is kept for a while and can be
// resumed; a compressed one begins anew at offset 0, as REAPI's offsets name no place in its frames.
func (s *server) Write(stream bspb.ByteStream_WriteServer) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "the stream ended before its first message, a WriteRequest with the upload's resource_name")
	}
	if err != nil {
		return err
	}
	r, err := writeName(first.GetResourceName())
	if err != nil {
		return fail(err)
	}
	inst, err := s.instance(ctx, r.instance, WriteCAS)
	if err != nil {
		return err
	}
	committed, err := s.write(stream, inst.CAS, r, first)
	if err != nil {
		return fail(err)
	}
	return stream.SendAndClose(&bspb.WriteResponse{CommittedSize: committed})
}

// write stores the blob and returns the committed size.
func (s *server) write(stream bspb.ByteStream_WriteServer, cas cache.CAS, r resource, first *bspb.WriteRequest) (int64, error) {
	ctx, d := stream.Context(), r.digest
	// Small blobs come in one message, and most of them are new: to look first would cost more than it saves.
	if first.GetFinishWrite() && first.GetWriteOffset() == 0 && !r.zstd {
		return d.Size(), cas.Put(ctx, d, bytes.NewReader(first.GetData()))
	}
	missing, err := cas.FindMissing(ctx, []digest.Digest{d})
	switch {
	case err != nil:
		return 0, err
	case len(missing) == 0 && r.zstd:
		return -1, nil
	case len(missing) == 0:
		return d.Size(), nil
	case r.zstd:
		return s.writeZstd(stream, cas, d, first)
	}
	return s.writePlain(stream, cas, d, first)
}

// writePlain stores a blob that comes as it is.
func (s *server) writePlain(stream bspb.ByteStream_WriteServer, cas cache.CAS, d digest.Digest, first *bspb.WriteRequest) (int64, error) {
	ctx := stream.Context()
	key := uploadKey{cache.PrincipalOf(ctx), first.GetResourceName()}
	var u *upload
	var number int
	at := first.GetWriteOffset()
	switch {
	case at < 0:
		return 0, status.Errorf(codes.InvalidArgument, "upload of %s begins at the negative offset %d", d, at)
	case at == 0:
		var err error
		if u, err = s.uploads.begin(ctx, cas, key, d); err != nil {
			return 0, err
		}
	default:
		var ok bool
		if u, number, ok = s.uploads.resume(key, d); !ok {
			return 0, status.Errorf(codes.InvalidArgument, "upload of %s begins at offset %d: nothing of it is kept, begin at 0", d, at)
		}
	}
	// What has come so far stays, for whoever goes on with it. That is not so if the upload itself is at fault.
	err := s.feed(stream, u, number, &messages{stream: stream, d: d, msg: first, offset: at})
	if errors.Is(err, errPutEnded) {
		err = nil
	}
	if err != nil {
		if c := status.Code(err); c == codes.InvalidArgument && !errors.Is(err, errUnfinished) {
			s.uploads.drop(u)
		}
		s.uploads.leave(u, number)
		return 0, err
	}
	if err := u.wait(ctx); err != nil {
		return 0, err
	}
	return d.Size(), nil
}

// feed hands the messages of a stream to an upload's Put.
func (s *server) feed(stream bspb.ByteStream_WriteServer, u *upload, number int, m *messages) error {
	for {
		if m.offset+int64(len(m.msg.GetData())) > u.d.Size() {
			return status.Errorf(codes.InvalidArgument, "upload of %s has more bytes than that", u.d)
		}
		if err := s.uploads.write(stream.Context(), u, number, m.offset, m.msg.GetData()); err != nil {
			return err
		}
		m.offset += int64(len(m.msg.GetData()))
		if m.msg.GetFinishWrite() {
			return u.pipe.Close()
		}
		if err := m.next(); err != nil {
			return err
		}
	}
}

// messages are those of one Write.
type messages struct {
	stream bspb.ByteStream_WriteServer
	d      digest.Digest
	msg    *bspb.WriteRequest
	offset int64 // of the next byte, as the client counts
}

// unfinished is an error about a stream that ended too early.
type unfinished struct{ error }

var errUnfinished = errors.New("unfinished")

func (unfinished) Is(target error) bool { return target == errUnfinished }

func (u unfinished) Unwrap() error { return u.error }

// next waits for another message.
func (m *messages) next() error {
	msg, err := m.stream.Recv()
	if errors.Is(err, io.EOF) {
		return unfinished{status.Errorf(codes.InvalidArgument, "upload of %s ended after %d bytes without finish_write", m.d, m.offset)}
	}
	if err != nil {
		return err
	}
	if msg.GetWriteOffset() != m.offset {
		return status.Errorf(codes.InvalidArgument, "upload of %s goes on at offset %d, not %d", m.d, msg.GetWriteOffset(), m.offset)
	}
	m.msg = msg
	return nil
}

// writeZstd stores a blob that comes compressed. The committed size is then the number of compressed bytes: clients
// compare it with what they sent.
func (s *server) writeZstd(stream bspb.ByteStream_WriteServer, cas cache.CAS, d digest.Digest, first *bspb.WriteRequest) (int64, error) {
	ctx := stream.Context()
	if first.GetWriteOffset() != 0 {
		return 0, status.Errorf(codes.InvalidArgument, "compressed upload of %s begins at offset %d: it cannot be resumed, begin at 0",
			d, first.GetWriteOffset())
	}
	if first.GetFinishWrite() && d.Size() <= maxInflated {
		release, err := s.budget.take(ctx, d.Size())
		if err != nil {
			return 0, err
		}
		defer release()
		data, err := s.zstd.inflate(first.GetData(), d)
		if err != nil {
			return 0, err
		}
		return int64(len(first.GetData())), cas.Put(ctx, d, bytes.NewReader(data))
	}
	release, err := s.waiting.take(ctx, maxWindow)
	if err != nil {
		return 0, err
	}
	defer release()
	r := &compressed{messages: messages{stream: stream, d: d, msg: first}, most: 2*min(d.Size(), 1<<60) + 1<<20}
	in, err := s.zstd.reader(r)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if err := cas.Put(ctx, d, in); err != nil {
		return 0, err
	}
	if !r.finished {
		return -1, nil // the blob has come by another way meanwhile
	}
	return r.offset, nil
}

// compressed reads the data of a compressed Write's messages.
type compressed struct {
	messages
	most     int64 // bytes, more than any encoder makes of the blob
	taken    int   // of the current message
	finished bool
}

func (r *compressed) Read(p []byte) (int, error) {
	for r.taken == len(r.msg.GetData()) {
		r.finished = r.finished || r.msg.GetFinishWrite()
		if r.finished {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
		r.taken = 0
	}
	n := copy(p, r.msg.GetData()[r.taken:])
	r.taken += n
	r.offset += int64(n)
	if r.offset > r.most {
		return 0, status.Errorf(codes.InvalidArgument, "compressed upload of %s takes more than %d bytes", r.d, r.most)
	}
	return n, nil
}

// QueryWriteStatus implements bspb.ByteStreamServer.
func (s *server) QueryWriteStatus(ctx context.Context, req *bspb.QueryWriteStatusRequest) (*bspb.QueryWriteStatusResponse, error) {
	r, err := writeName(req.GetResourceName())
	if err != nil {
		return nil, fail(err)
	}
	inst, err := s.instance(ctx, r.instance, WriteCAS)
	if err != nil {
		return nil, err
	}
	missing, err := inst.CAS.FindMissing(ctx, []digest.Digest{r.digest})
	if err != nil {
		return nil, fail(err)
	}
	if len(missing) == 0 {
		return &bspb.QueryWriteStatusResponse{CommittedSize: r.digest.Size(), Complete: true}, nil
	}
	key := uploadKey{cache.PrincipalOf(ctx), req.GetResourceName()}
	return &bspb.QueryWriteStatusResponse{CommittedSize: s.uploads.offset(key, r.digest)}, nil
}
