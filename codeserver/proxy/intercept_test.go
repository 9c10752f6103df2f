package proxy

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
)

// TestOthers follows what a Switch remembers of backends through switches and a trial.
func TestOthers(t *testing.T) {
	s := New(t.Logf)
	a, b, c := NewBackend("a"), NewBackend("b"), NewBackend("c")
	s.Point(a)
	require.Empty(t, s.Others())
	require.Same(t, a, s.Current())
	s.Try(b, 10)
	require.Equal(t, []*Backend{b}, s.Others())
	s.Point(b)
	require.Equal(t, []*Backend{a}, s.Others())
	s.Point(nil) // b has died, perhaps
	require.Equal(t, []*Backend{b, a}, s.Others())
	s.Point(c)
	s.Remember(a)
	require.Equal(t, []*Backend{a, b}, s.Others())
	require.NoError(t, a.Close())
	require.Equal(t, []*Backend{b}, s.Others())
	s.Point(b)
	require.Equal(t, []*Backend{c}, s.Others())
}

// TestTowards sends requests to a version that was replaced, and when that has ended to the current one.
func TestTowards(t *testing.T) {
	addrA, _ := startHTTP(t, named("a"))
	addrB, _ := startHTTP(t, named("b"))
	a := NewBackend(addrA)
	s := New(t.Logf)
	s.Intercept(func(forward http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
			if in.URL.Path == "/old" {
				in = Towards(a, in)
			}
			forward.ServeHTTP(w, in)
		})
	})
	s.Point(a)
	s.Point(NewBackend(addrB))
	l := listen(t)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	get := func(path string) string {
		res, err := newClient(t, false).Get("http://" + l.Addr().String() + path)
		require.NoError(t, err)
		return body(t, res)
	}
	require.Equal(t, "b 0", get("/"))
	require.Equal(t, "a 0", get("/old"))
	require.NoError(t, a.Drain(testContext(t)))
	require.Equal(t, "a 0", get("/old"))
	require.NoError(t, a.Close())
	require.Equal(t, "b 0", get("/old"))
}

func TestInvoke(t *testing.T) {
	ctx := testContext(t)
	addr, _ := (&version{name: "a"}).start(t)
	b := NewBackend(addr)
	defer b.Close()
	reply, err := b.Invoke(ctx, testpb.TestService_UnaryCall_FullMethodName, nil)
	require.NoError(t, err)
	var said testpb.SimpleResponse
	require.NoError(t, proto.Unmarshal(reply, &said))
	require.Equal(t, "a", said.GetServerId())
	require.Zero(t, b.InFlight())
	_, err = b.Invoke(ctx, "/grpc.testing.TestService/Nothing", nil)
	require.ErrorIs(t, err, errCall)
	require.ErrorContains(t, err, `gRPC status "12"`)
	addr, _ = startHTTP(t, named("no gRPC"))
	b = NewBackend(addr)
	defer b.Close()
	_, err = b.Invoke(ctx, "/x", nil)
	require.Error(t, err)
	require.Equal(t, Counts{}, b.stats.Counts())
}
