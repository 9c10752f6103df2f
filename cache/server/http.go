package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/full"
)

// HTTP returns a handler of Bazel's HTTP cache protocol: GET, HEAD and PUT of
//
//	/[INSTANCE/][blake3/]cas/HASH
//	/[INSTANCE/][blake3/]ac/HASH
//
// The context of a request is what Instances gets to see, so authentication goes before this handler.
//
// HASH is 64 lower-case hexadecimal digits, by sha256 unless blake3 stands before it. A blob's size is not in the URL, so
// the CAS has to be a cache.HashFinder for GET and HEAD of blobs. See http_ac.go for what is under ac.
func HTTP(instances Instances, opts ...Option) http.Handler {
	return &httpServer{newServer(instances, opts)}
}

type httpServer struct{ *server }

// ServeHTTP implements http.Handler.
func (s *httpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := parsePath(r.URL.Path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	patient := newPatience(w, s.idle)
	defer patient.end()
	c.w, c.r = patient.writer(w), r
	var serve func(*call) error
	switch {
	case r.Method == http.MethodPut && c.actions:
		serve = s.putAction
	case r.Method == http.MethodPut:
		serve = s.putBlob
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && c.actions:
		serve = s.getAction
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		serve = s.getBlob
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT")
		http.Error(w, "use GET, HEAD or PUT", http.StatusMethodNotAllowed)
		return
	}
	c.body = patient.reader(r.Body)
	if err := serve(c); err != nil {
		answer(w, err)
	}
}

// call is one request.
type call struct {
	instance string
	actions  bool // ac, not cas
	fn       digest.Function
	sum      [digest.Size]byte
	w        http.ResponseWriter
	r        *http.Request
	body     io.Reader
}

// parsePath reads what a path names.
func parsePath(path string) (*call, error) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) < 2 {
		return nil, errPath(path)
	}
	kind, hash := parts[len(parts)-2], parts[len(parts)-1]
	if kind != "cas" && kind != "ac" {
		return nil, errPath(path)
	}
	c := &call{actions: kind == "ac", fn: digest.SHA256}
	parts = parts[:len(parts)-2]
	if n := len(parts); n > 0 {
		if fn, ok := digest.FunctionNamed(parts[n-1]); ok {
			c.fn, parts = fn, parts[:n-1]
		}
	}
	d, err := c.fn.New(hash, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPath(path), err)
	}
	c.sum = d.Sum()
	c.instance = strings.Join(parts, "/")
	return c, nil
}

func errPath(path string) error {
	return fmt.Errorf("%.300q is not /[INSTANCE/]cas/HASH or /[INSTANCE/]ac/HASH", path)
}

// answer says what went wrong. A miss is 404 and nothing else is: a client takes that for "go on without".
func answer(w http.ResponseWriter, err error) {
	s := status.Convert(fail(err))
	code := statusOf(s.Code())
	if code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="cache", charset="UTF-8"`)
	}
	http.Error(w, s.Message(), code)
}

func statusOf(c codes.Code) int {
	switch c {
	case codes.NotFound:
		return http.StatusNotFound
	case codes.InvalidArgument, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.FailedPrecondition:
		return http.StatusPreconditionFailed
	case codes.ResourceExhausted:
		return http.StatusInsufficientStorage
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.DeadlineExceeded:
		return http.StatusRequestTimeout
	case codes.DataLoss, codes.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusServiceUnavailable
}

// find returns the digest of the blob that a call names.
func (c *call) find(ctx context.Context, cas cache.CAS) (digest.Digest, error) {
	d, ok, err := cache.FindHash(ctx, cas, c.fn, c.sum)
	if !ok {
		return d, status.Error(codes.Unimplemented, "this cache finds no blobs by hash alone: use gRPC")
	}
	return d, err
}

// getBlob answers GET and HEAD of a blob.
func (s *httpServer) getBlob(c *call) error {
	ctx := c.r.Context()
	inst, err := s.instance(ctx, c.instance, Read)
	if err != nil {
		return err
	}
	d, err := c.find(ctx, inst.CAS)
	if err != nil {
		return err
	}
	from, n, partial, err := byteRange(c.r.Header.Get("Range"), d.Size())
	if err != nil {
		c.w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", d.Size()))
		http.Error(c.w, err.Error(), http.StatusRequestedRangeNotSatisfiable)
		return nil
	}
	header := c.w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Length", strconv.FormatInt(n, 10))
	header.Set("Accept-Ranges", "bytes")
	code := http.StatusOK
	if partial {
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+n-1, d.Size()))
		code = http.StatusPartialContent
	}
	if c.r.Method == http.MethodHead {
		c.w.WriteHeader(code)
		return nil
	}
	rc, err := full.Of(inst.CAS).GetFrom(ctx, d, from)
	if err != nil {
		for _, h := range []string{"Content-Length", "Content-Range", "Accept-Ranges"} {
			header.Del(h)
		}
		return stored(err)
	}
	defer rc.Close()
	buf, release, err := s.budget.buffer(ctx, n)
	if err != nil {
		return err
	}
	defer release()
	var src io.Reader = rc
	if from+n < d.Size() {
		src = io.LimitReader(rc, n)
	}
	c.w.WriteHeader(code)
	// Once the header is out nothing but a broken connection tells the client that the rest is wrong or will not come.
	if _, err := io.CopyBuffer(struct{ io.Writer }{c.w}, struct{ io.Reader }{src}, buf); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// byteRange reads a Range header of one range; others are ignored, as HTTP allows.
func byteRange(h string, size int64) (from, n int64, partial bool, err error) {
	spec, ok := strings.CutPrefix(h, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") {
		return 0, size, false, nil
	}
	to := size - 1
	from, err = strconv.ParseInt(first, 10, 64)
	switch {
	case first == "": // the last bytes
		count, perr := strconv.ParseInt(last, 10, 64)
		if perr != nil || count < 0 {
			return 0, size, false, nil
		}
		from, err = max(0, size-count), nil
	case err != nil || from < 0:
		return 0, size, false, nil
	case last != "":
		end, perr := strconv.ParseInt(last, 10, 64)
		if perr != nil || end < from {
			return 0, size, false, nil
		}
		to = min(to, end)
	}
	if from >= size {
		return 0, 0, false, fmt.Errorf("range %.40q lies outside of %d bytes", h, size)
	}
	return from, to - from + 1, true, nil
}

// putBlob stores a blob. Its size is the body's.
func (s *httpServer) putBlob(c *call) error {
	ctx := c.r.Context()
	inst, err := s.instance(ctx, c.instance, WriteCAS)
	if err != nil {
		return err
	}
	size, body := c.r.ContentLength, c.body
	if size < 0 {
		f, n, err := s.spoolBody(c)
		if err != nil {
			return err
		}
		defer f.Close()
		size, body = n, f
	}
	if err := inst.CAS.Put(ctx, c.fn.FromSum(c.sum, size), body); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusCreated)
	return nil
}
