package server_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// web is a memory cache behind an HTTP server.
type web struct {
	*httptest.Server
	store *memory.Store
}

func serveHTTP(t *testing.T, opts ...server.Option) *web {
	m := memory.New()
	s := httptest.NewServer(server.HTTP(server.Single(m, complete.New(m, m)), opts...))
	t.Cleanup(s.Close)
	return &web{s, m}
}

func (w *web) do(t *testing.T, method, path string, body io.Reader, header ...string) (int, string, http.Header) {
	req, err := http.NewRequestWithContext(t.Context(), method, w.URL+path, body)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b), resp.Header
}

func TestHTTPBlobs(t *testing.T) {
	w := serveHTTP(t)
	large := strings.Repeat("large ", 200_000)
	for _, fn := range digest.Functions {
		prefix := "/"
		if fn != digest.SHA256 {
			prefix = "/" + fn.String() + "/"
		}
		for _, prefix := range []string{prefix, "/some/instance" + prefix} {
			for _, data := range []string{"small", large} {
				d := fn.FromBytes([]byte(data + prefix))
				url := prefix + "cas/" + d.Hash()
				code, _, _ := w.do(t, "GET", url, nil)
				require.Equal(t, 404, code)
				code, _, _ = w.do(t, "HEAD", url, nil)
				require.Equal(t, 404, code)
				code, says, _ := w.do(t, "PUT", url, strings.NewReader(data+prefix))
				require.Equal(t, 201, code, says)
				code, got, _ := w.do(t, "GET", url, nil)
				require.Equal(t, 200, code)
				require.True(t, got == data+prefix)
				code, _, h := w.do(t, "HEAD", url, nil)
				require.Equal(t, 200, code)
				require.Equal(t, strconv.FormatInt(d.Size(), 10), h.Get("Content-Length"))
			}
		}
	}
	code, got, h := w.do(t, "GET", "/cas/"+digest.Empty.Hash(), nil)
	require.Equal(t, 200, code, "the empty blob is always there")
	require.Empty(t, got)
	require.Equal(t, "0", h.Get("Content-Length"))
}

// TestHTTPUnknownSize sends bodies in HTTP's chunks, which do not say how many there are.
func TestHTTPUnknownSize(t *testing.T) {
	w := serveHTTP(t, server.WithSpool(t.TempDir()))
	for _, n := range []int{0, 10, 1 << 20} {
		data := strings.Repeat("x", n)
		code, says, _ := w.do(t, "PUT", "/cas/"+of(data).Hash(), struct{ io.Reader }{strings.NewReader(data)})
		require.Equal(t, 201, code, says)
		code, got, _ := w.do(t, "GET", "/cas/"+of(data).Hash(), nil)
		require.Equal(t, 200, code)
		require.True(t, data == got)
	}
	code, says, _ := w.do(t, "PUT", "/cas/"+of("x").Hash(), struct{ io.Reader }{strings.NewReader("y")})
	require.Equal(t, 400, code)
	require.Contains(t, says, of("x").Hash())
}

func TestHTTPRefuses(t *testing.T) {
	w := serveHTTP(t)
	hello := "/cas/" + of("hello").Hash()
	code, says, _ := w.do(t, "PUT", hello, strings.NewReader("hallo"))
	require.Equal(t, 400, code)
	require.Contains(t, says, of("hello").Hash())
	code, _, _ = w.do(t, "GET", hello, nil)
	require.Equal(t, 404, code, "nothing of it is visible")
	for _, path := range []string{"/", "/cas", "/cas/", "/cas/x", "/x/" + of("x").Hash(), "/cas/" + strings.ToUpper(of("x").Hash()), hello + "/5", "/cas/../ac/x"} {
		code, _, _ = w.do(t, "GET", path, nil)
		require.Equal(t, 404, code, path)
	}
	code, _, h := w.do(t, "DELETE", hello, nil)
	require.Equal(t, 405, code)
	require.Equal(t, "GET, HEAD, PUT", h.Get("Allow"))
}

func TestHTTPRanges(t *testing.T) {
	w := serveHTTP(t)
	d := put(t, w.store, "0123456789")
	for spec, want := range map[string]string{
		"bytes=0-": "0123456789", "bytes=2-4": "234", "bytes=7-": "789", "bytes=-3": "789", "bytes=5-100": "56789", "bytes=-100": "0123456789",
	} {
		code, got, h := w.do(t, "GET", "/cas/"+d.Hash(), nil, "Range", spec)
		require.Equal(t, 206, code, spec)
		require.Equal(t, want, got, spec)
		require.Contains(t, h.Get("Content-Range"), "/10")
	}
	for _, spec := range []string{"lines=1-2", "bytes=1-2,4-5", "bytes=x-", "bytes=4-2", "bytes=--1"} {
		code, got, _ := w.do(t, "GET", "/cas/"+d.Hash(), nil, "Range", spec)
		require.Equal(t, 200, code, spec)
		require.Equal(t, "0123456789", got)
	}
	code, _, h := w.do(t, "GET", "/cas/"+d.Hash(), nil, "Range", "bytes=10-")
	require.Equal(t, 416, code)
	require.Equal(t, "bytes */10", h.Get("Content-Range"))
}

// TestHTTPActionResults shows that HTTP and gRPC find each other's results, if the Action is in the CAS, and that a
// result without its Action is there for HTTP.
func TestHTTPActionResults(t *testing.T) {
	w := serveHTTP(t)
	g := dial(t, w.store, complete.New(w.store, w.store))
	action, out := put(t, w.store, "the action"), put(t, w.store, "output")
	ar := &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "o", Digest: out.Proto()}}, StdoutRaw: []byte("by HTTP")}
	body, err := proto.Marshal(ar)
	require.NoError(t, err)
	url := "/ac/" + action.Hash()
	code, _, _ := w.do(t, "GET", url, nil)
	require.Equal(t, 404, code)
	code, says, _ := w.do(t, "PUT", url, bytes.NewReader(body))
	require.Equal(t, 201, code, says)
	got, err := g.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: action.Proto()})
	require.NoError(t, err)
	require.True(t, proto.Equal(ar, got))

	ar.StdoutRaw = []byte("by gRPC")
	_, err = g.ac.UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{ActionDigest: action.Proto(), ActionResult: ar})
	require.NoError(t, err)
	code, b, _ := w.do(t, "GET", url, nil)
	require.Equal(t, 200, code)
	require.NoError(t, proto.Unmarshal([]byte(b), got))
	require.True(t, proto.Equal(ar, got))
	code, _, h := w.do(t, "HEAD", url, nil)
	require.Equal(t, 200, code)
	require.Equal(t, strconv.Itoa(len(b)), h.Get("Content-Length"))

	unknown := "/ac/" + of("an action that nobody stored").Hash()
	code, _, _ = w.do(t, "PUT", unknown, bytes.NewReader(body))
	require.Equal(t, 201, code)
	code, b, _ = w.do(t, "GET", unknown, nil)
	require.Equal(t, 200, code)
	require.Equal(t, string(body), b)

	ar.OutputFiles[0].Digest = of("gone").Proto()
	body, err = proto.Marshal(ar)
	require.NoError(t, err)
	for _, url := range []string{url, unknown} {
		code, says, _ = w.do(t, "PUT", url, bytes.NewReader(body))
		require.Equal(t, 412, code, "its output is not in the CAS")
		require.Contains(t, says, of("gone").Hash())
	}
}

// TestHTTPValues stores under /ac what is no ActionResult, as ccache does.
func TestHTTPValues(t *testing.T) {
	w := serveHTTP(t)
	g := dial(t, w.store, complete.New(w.store, w.store))
	url := "/ac/" + of("a key of ccache").Hash()
	for _, value := range []string{"\xcc\xac\x01\x00 some bytes", strings.Repeat("\xcc\xac", 1<<20), "text"} {
		code, says, _ := w.do(t, "PUT", url, strings.NewReader(value))
		require.Equal(t, 201, code, says)
		code, got, _ := w.do(t, "GET", url, nil)
		require.Equal(t, 200, code)
		require.True(t, value == got)
		code, _, h := w.do(t, "HEAD", url, nil)
		require.Equal(t, 200, code)
		require.Equal(t, strconv.Itoa(len(value)), h.Get("Content-Length"))
	}
	_, err := g.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{ActionDigest: &repb.Digest{Hash: of("a key of ccache").Hash(), SizeBytes: 15}})
	require.Error(t, err, "gRPC does not take it for an ActionResult")
	code, _, _ := w.do(t, "PUT", url, struct{ io.Reader }{strings.NewReader("in chunks")})
	require.Equal(t, 201, code)
}

// bare is a CAS that finds nothing by hash.
type bare struct{ cache.CAS }

func TestHTTPWithoutHashes(t *testing.T) {
	m := memory.New()
	s := httptest.NewServer(server.HTTP(server.Single(bare{m}, m)))
	t.Cleanup(s.Close)
	w := &web{s, m}
	code, _, _ := w.do(t, "PUT", "/cas/"+of("x").Hash(), strings.NewReader("x"))
	require.Equal(t, 201, code)
	code, says, _ := w.do(t, "GET", "/cas/"+of("x").Hash(), nil)
	require.Equal(t, 501, code)
	require.Contains(t, says, "gRPC")
	code, _, _ = w.do(t, "PUT", "/ac/"+of("x").Hash(), strings.NewReader("value"))
	require.Equal(t, 201, code)
	code, got, _ := w.do(t, "GET", "/ac/"+of("x").Hash(), nil)
	require.Equal(t, 200, code)
	require.Equal(t, "value", got)
}

func TestHTTPOnlyNotFoundIsAMiss(t *testing.T) {
	m := memory.New()
	s := httptest.NewServer(server.HTTP(server.Single(failing{m}, m)))
	t.Cleanup(s.Close)
	w := &web{s, m}
	code, says, _ := w.do(t, "PUT", "/cas/"+of("x").Hash(), strings.NewReader("x"))
	require.Equal(t, 503, code)
	require.Contains(t, says, errDisk.Error())
}

// TestHTTPTrickle drops an upload that does not go on.
func TestHTTPTrickle(t *testing.T) {
	w := serveHTTP(t, server.WithIdle(50*time.Millisecond))
	conn, err := net.Dial("tcp", w.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "PUT /cas/"+of("hello").Hash()+" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel")
	require.NoError(t, err)
	b, err := io.ReadAll(conn)
	require.NoError(t, err, "the server closes the connection")
	require.Contains(t, string(b), "408 Request Timeout")
}
