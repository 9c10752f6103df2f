package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// ended waits until so many requests have ended: a client may have the answer before.
func ended(t *testing.T, s *Stats, n int64) Counts {
	t.Helper()
	require.Eventually(t, func() bool { return s.Counts().Answered == n }, deadline, time.Millisecond)
	return s.Counts()
}

func TestStatsHTTP(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	v := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			<-release
		case "/heard":
			w.WriteHeader(http.StatusInternalServerError)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/broken":
			w.Header().Set("Content-Length", "10")
			_, _ = w.Write([]byte("half"))
		default:
			code, _ := strconv.Atoi(strings.Trim(r.URL.Path, "/"))
			w.WriteHeader(code)
		}
	}))
	defer v.Close()
	defer close(release)
	stats := new(Stats)
	_, addr := serve(t, NewMeasured(strings.TrimPrefix(v.URL, "http://"), stats))
	n := int64(0)
	for _, c := range []struct {
		path   string
		failed int64
	}{{"/200", 0}, {"/404", 0}, {"/500", 1}, {"/503", 1}, {"/broken", 1}} {
		before := stats.Counts().Failed
		resp, err := http.Get("http://" + addr + c.path)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, resp.Body) // to its end, whole or broken: who goes before has not heard it
		resp.Body.Close()
		n++
		require.Equal(t, c.failed, ended(t, stats, n).Failed-before, c.path)
	}
	// Who goes when he has heard that it has failed has heard so.
	heard := stats.Counts().Failed
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	_, err = c.Write([]byte("GET /heard HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)
	_, err = bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, c.Close())
	n++
	require.Equal(t, heard+1, ended(t, stats, n).Failed)
	// Who goes before there is an answer is no failure of the version.
	before := stats.Counts().Failed
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/hang", nil)
	require.NoError(t, err)
	go func() {
		for stats.Counts().Begun == n {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, err = http.DefaultClient.Do(req)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, before, ended(t, stats, n+1).Failed)
}

func TestStatsGRPC(t *testing.T) {
	t.Parallel()
	failures := map[codes.Code]bool{
		codes.Unknown: true, codes.DeadlineExceeded: true, codes.ResourceExhausted: true, codes.Unimplemented: true,
		codes.Internal: true, codes.Unavailable: true, codes.DataLoss: true,
	}
	var answer codes.Code
	v := &version{name: "v"}
	v.unary = func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return &testpb.SimpleResponse{}, status.Error(answer, "")
	}
	at, _ := v.start(t)
	b := NewBackend(at)
	_, addr := serve(t, b)
	c := dialGRPC(t, addr)
	for answer = codes.OK; answer <= codes.Unauthenticated; answer++ {
		before := b.stats.Counts()
		_, err := c.UnaryCall(testContext(t), &testpb.SimpleRequest{})
		require.Equal(t, answer, status.Code(err))
		after := ended(t, b.stats, before.Answered+1)
		require.Equal(t, failures[answer], after.Failed > before.Failed, fmt.Sprint(answer))
	}
}

func TestLatencies(t *testing.T) {
	t.Parallel()
	s := new(Stats)
	p50, p99 := s.Latencies()
	require.Zero(t, p50+p99)
	s.time(7)
	p50, p99 = s.Latencies()
	require.Equal(t, []time.Duration{7, 7}, []time.Duration{p50, p99})
	for i := range 3000 { // the last 1,024 of them are 1977 to 3000
		s.time(time.Duration(i + 1))
	}
	p50, p99 = s.Latencies()
	require.Equal(t, []time.Duration{1976 + 512, 1976 + 1014}, []time.Duration{p50, p99})
}

// TestTry counts who gets what while a version is tried, and after.
func TestTry(t *testing.T) {
	t.Parallel()
	s := New(t.Logf)
	old, fresh := NewBackend("old"), NewBackend("fresh")
	share := func() (n int) {
		for range 10000 {
			b, _ := s.acquire(httptest.NewRequest(http.MethodGet, "/", nil))
			if b == fresh {
				n++
			}
			b.release()
		}
		return n
	}
	s.Point(old)
	require.Zero(t, share())
	s.Try(fresh, 10)
	n := share()
	require.Greater(t, n, 800) // 10,000 draws of 10 %: six times the deviation is 180
	require.Less(t, n, 1200)
	s.Try(nil, 0)
	require.Zero(t, share())
	s.Try(fresh, 10)
	s.Point(nil)
	require.Equal(t, 10000, share(), "nobody else is there")
	s.Point(fresh)
	require.Nil(t, s.trial)
	require.Same(t, fresh, s.Point(old))
	require.Zero(t, share())
}
