package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// What stands under /ac/HASH.
//
// Bazel puts an ActionResult there, and has put the Action itself into the CAS before. gRPC's ActionCache is keyed by
// the Action's whole digest, so the Action's size is looked up by its hash, and the result is stored as gRPC would: a
// build over HTTP and one over gRPC find each other's results.
//
// Others take /ac for a map from 64 digits to bytes (ccache with layout=bazel). Such a value is a blob, and an
// ActionResult with that blob as its one output file stands under a key that no Action has: see httpKey. So what keeps
// ActionResults whole keeps it, too. The same key takes an ActionResult whose Action is not in the CAS.
//
// What a body is, it says itself: an ActionResult if it is such a message without unknown fields.

// maxValue bounds a body under /ac.
const maxValue = 64 << 20

// valuePath is the path of the output file that is a value of HTTP's.
const valuePath = ".pexpress/http-value"

// httpKey returns the key of what HTTP has under a hash: the digest of a text that is no Action.
func httpKey(fn digest.Function, sum [digest.Size]byte) digest.Digest {
	return fn.FromBytes(fmt.Appendf(nil, "pexpress: value of /ac/%s by HTTP", fn.FromSum(sum, 0).Hash()))
}

// getAction answers GET and HEAD of what stands under ac.
func (s *httpServer) getAction(c *call) error {
	ctx := c.r.Context()
	inst, err := s.actions(ctx, c.instance, Read)
	if err != nil {
		return err
	}
	ar, err := c.result(ctx, inst)
	if err != nil {
		return err
	}
	if files := ar.GetOutputFiles(); len(files) == 1 && files[0].GetPath() == valuePath {
		return s.sendValue(c, inst.CAS, files[0].GetDigest())
	}
	b, err := proto.Marshal(ar)
	if err != nil {
		return err
	}
	return s.sendBody(c, int64(len(b)), bytes.NewReader(b))
}

// result returns the ActionResult of the Action with the call's hash, or what HTTP has stored there.
func (c *call) result(ctx context.Context, inst Instance) (*repb.ActionResult, error) {
	action, err := c.find(ctx, inst.CAS)
	if err == nil {
		var ar *repb.ActionResult
		if ar, err = inst.ActionCache.GetActionResult(ctx, action); err == nil {
			return ar, nil
		}
	}
	if code := status.Code(fail(err)); code != codes.NotFound && code != codes.Unimplemented {
		return nil, err
	}
	return inst.ActionCache.GetActionResult(ctx, httpKey(c.fn, c.sum))
}

func (s *httpServer) sendValue(c *call, cas cache.CAS, p *repb.Digest) error {
	d, err := c.fn.FromProto(p)
	if err != nil {
		return err
	}
	rc, err := cas.Get(c.r.Context(), d)
	if err != nil {
		return stored(err)
	}
	defer rc.Close()
	return s.sendBody(c, d.Size(), rc)
}

func (s *httpServer) sendBody(c *call, size int64, body io.Reader) error {
	buf, release, err := s.budget.buffer(c.r.Context(), size)
	if err != nil {
		return err
	}
	defer release()
	c.w.Header().Set("Content-Type", "application/octet-stream")
	c.w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{c.w}, struct{ io.Reader }{body}, buf); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// putAction stores an ActionResult, or what another client keeps under ac.
func (s *httpServer) putAction(c *call) error {
	ctx := c.r.Context()
	inst, err := s.actions(ctx, c.instance, WriteActions)
	if err != nil {
		return err
	}
	if c.r.ContentLength > maxValue {
		return errValue
	}
	body, release, err := s.readValue(ctx, c.body)
	if err != nil {
		return err
	}
	defer release()
	if err := s.putValue(ctx, inst, c, body); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

var errValue = status.Errorf(codes.InvalidArgument, "what stands under ac has at most %d bytes", maxValue)

// readValue reads a body into memory. What it takes of the budget grows with what has come: who declares much and sends
// little holds little.
func (s *httpServer) readValue(ctx context.Context, r io.Reader) (body []byte, release func(), err error) {
	taken := int64(64 << 10)
	first, err := s.waiting.take(ctx, taken)
	if err != nil {
		return nil, nil, err
	}
	releases := []func(){first}
	release = func() {
		for _, r := range releases {
			r()
		}
	}
	var buf bytes.Buffer
	for {
		_, err := buf.ReadFrom(io.LimitReader(r, taken-int64(buf.Len())))
		switch {
		case err == nil && int64(buf.Len()) < taken:
			return buf.Bytes(), release, nil
		case err == nil && taken > maxValue:
			err = errValue
		case err == nil:
			// Not take: those who hold a part and wait for more would wait for each other.
			more, ok := s.waiting.tryTake(taken)
			if ok {
				releases, taken = append(releases, more), 2*taken
				continue
			}
			err = status.Error(codes.ResourceExhausted, "too many large values are on their way: try again")
		}
		release()
		return nil, nil, err
	}
}

func (s *httpServer) putValue(ctx context.Context, inst Instance, c *call, body []byte) error {
	ar, ok := asResult(c.fn, body)
	if !ok {
		if _, err := s.instance(ctx, c.instance, WriteCAS); err != nil {
			return err // the value is a blob
		}
		d := c.fn.FromBytes(body)
		if err := inst.CAS.Put(ctx, d, bytes.NewReader(body)); err != nil {
			return err
		}
		wrapped := &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: valuePath, Digest: d.Proto()}}}
		return s.update(ctx, inst, httpKey(c.fn, c.sum), wrapped)
	}
	action, err := c.find(ctx, inst.CAS)
	if code := status.Code(fail(err)); code == codes.NotFound || code == codes.Unimplemented {
		action, err = httpKey(c.fn, c.sum), nil
	}
	if err != nil {
		return err
	}
	return s.update(ctx, inst, action, ar)
}

// asResult returns a body as an ActionResult if it is one.
func asResult(fn digest.Function, body []byte) (*repb.ActionResult, bool) {
	ar := &repb.ActionResult{}
	if proto.Unmarshal(body, ar) != nil || len(ar.ProtoReflect().GetUnknown()) > 0 {
		return nil, false
	}
	for _, f := range ar.GetOutputFiles() {
		if _, err := fn.FromProto(f.GetDigest()); err != nil || f.GetPath() == valuePath {
			return nil, false
		}
	}
	// What would come back as other bytes is not one.
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(ar)
	return ar, err == nil && bytes.Equal(again, body)
}
