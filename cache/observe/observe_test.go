package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// clock is a time that tests set.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}

// world is an Observer of one memory cache.
type world struct {
	*Observer
	t     *testing.T
	clock *clock
	store *memory.Store
	log   bytes.Buffer
	tiers []Tier
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, clock: newClock(), store: memory.New()}
	w.Observer = New(Options{
		Version: "1", Now: w.clock.now, Tiers: func() []Tier { return w.tiers }, Prices: ListPrices.With(Prices{"put": 0.01}),
		Family: func(name string) string { return name },
		Log:    slog.New(slog.NewJSONHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	return w
}

// call runs f as a gRPC call of a method, by an action of the given mnemonic.
func (w *world) call(name, instance, mnemonic string, f func(context.Context, server.Instance) error) error {
	b, err := proto.Marshal(&repb.RequestMetadata{ActionMnemonic: mnemonic, TargetId: "//a:b"})
	require.NoError(w.t, err)
	ctx := metadata.NewIncomingContext(w.t.Context(), metadata.Pairs(metadataKey, string(b), "authorization", "Bearer secret-token"))
	ctx = cache.WithPrincipal(ctx, "token:ci")
	_, err = w.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/build.bazel.remote.execution.v2." + name}, func(ctx context.Context, _ any) (any, error) {
		in, err := w.Instances(server.Single(w.store, w.store)).Instance(ctx, instance, server.Read)
		require.NoError(w.t, err)
		require.NotEmpty(w.t, RequestID(ctx))
		return nil, f(ctx, in)
	})
	return err
}

func (w *world) lookup(instance, mnemonic, action string) {
	err := w.call("ActionCache/GetActionResult", instance, mnemonic, func(ctx context.Context, in server.Instance) error {
		w.clock.advance(time.Millisecond)
		_, err := in.ActionCache.GetActionResult(ctx, digest.FromBytes([]byte(action)))
		if errors.Is(err, cache.ErrNotFound) {
			return status.Error(codes.NotFound, err.Error())
		}
		return err
	})
	if err != nil {
		require.Equal(w.t, codes.NotFound, status.Code(err))
	}
}

func all(string) bool { return true }

func TestCounts(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, w.call("ActionCache/UpdateActionResult", "main", "GoCompile", func(ctx context.Context, in server.Instance) error {
		d, err := cache.PutBlob(ctx, in.CAS, make([]byte, 1000))
		require.NoError(t, err)
		got, err := cache.ReadBlob(ctx, in.CAS, d, 1000)
		require.NoError(t, err)
		require.Len(t, got, 1000)
		missing, err := in.CAS.FindMissing(ctx, []digest.Digest{d, digest.FromBytes([]byte("absent"))})
		require.NoError(t, err)
		require.Len(t, missing, 1)
		return in.ActionCache.UpdateActionResult(ctx, digest.FromBytes([]byte("built")), &repb.ActionResult{ExitCode: 0, StdoutRaw: []byte("x")})
	}))
	w.lookup("main", "GoCompile", "built")
	w.lookup("main", "GoCompile", "not built")
	w.lookup("pr-*", "", "not built")
	w.tiers = []Tier{{Name: "disk", Bytes: 10, MaxBytes: 100, Evicted: 3}, {Name: "s3", Bytes: 20, Requests: map[string]int64{"PUT": 2, "GET": 10}}}

	s := w.Status(all)
	require.Len(t, s.Instances, 2)
	require.Equal(t, InstanceStatus{
		Name: "main", Hits: 1, Misses: 1, Updates: 1, Read: 1000, Written: 1000, Present: 1, Missing: 1,
		Mnemonics: []MnemonicStatus{{"GoCompile", 1, 1}},
	}, s.Instances[0])
	require.Equal(t, []MnemonicStatus{{noMnemonic, 0, 1}}, s.Instances[1].Mnemonics)
	require.EqualValues(t, 4, s.Requests)
	require.Zero(t, s.Active)
	require.Zero(t, s.InFlight)
	require.InDelta(t, 0.02+10*0.0004/1000, s.S3.Dollars, 1e-9, "prices that the configuration changes, and list prices")
	require.Equal(t, "ActionCache/GetActionResult", s.Slow[0].Method)

	page := get(t, w.Metrics(open(true)), "/metrics", http.StatusOK)
	for _, line := range []string{
		`pexcache_action_results_total{instance="main",mnemonic="GoCompile",outcome="hit"} 1`,
		`pexcache_action_results_total{instance="pr-*",mnemonic="(none)",outcome="miss"} 1`,
		`pexcache_blob_bytes_total{direction="written",instance="main"} 1000`,
		`pexcache_requests_total{code="NotFound",instance="main",method="ActionCache/GetActionResult"} 1`,
		`pexcache_request_seconds_count{instance="main",method="ActionCache/GetActionResult"} 2`,
		`pexcache_s3_requests_total{operation="PUT"} 2`,
		`pexcache_s3_request_dollars_total{operation="PUT"} 0.02`,
		`pexcache_tier_bytes{tier="disk"} 10`,
		`pexcache_tier_evicted_total{tier="disk"} 3`,
	} {
		require.Contains(t, page, line+"\n")
	}
	problems, err := testutil.GatherAndLint(w.Registry())
	require.NoError(t, err)
	require.Empty(t, problems)
}

// TestConformance: what is counted still keeps all promises.
func TestConformance(t *testing.T) {
	newInstance := func(t *testing.T) server.Instance {
		s := memory.New()
		in, err := New(Options{}).Instances(server.Single(s, s)).Instance(t.Context(), "", server.Read)
		require.NoError(t, err)
		return in
	}
	cachetest.TestCAS(t, func(t *testing.T) cache.CAS { return newInstance(t).CAS })
	cachetest.TestActionCache(t, func(t *testing.T) (cache.CAS, cache.ActionCache) {
		in := newInstance(t)
		return in.CAS, in.ActionCache
	})
}

// TestMnemonicsAreBounded: clients make them up.
func TestMnemonicsAreBounded(t *testing.T) {
	w := newWorld(t)
	for i := range 3 * maxMnemonics {
		w.lookup("main", fmt.Sprint("Made", i), "x")
	}
	w.lookup("main", strings.Repeat("long", 1000), "x")
	m := w.Status(all).Instances[0].Mnemonics
	require.LessOrEqual(t, len(m), maxMnemonics+1)
	require.Equal(t, otherMnemonics, m[0].Name)
	require.EqualValues(t, 2*maxMnemonics+1, m[0].Misses)
	require.Equal(t, "ab", cleanMnemonic("a\x00\x1b\n\xffb"))
	require.Less(t, len(cleanMnemonic(strings.Repeat("é", 1000))), 100)
}

func TestLogsHoldNoSecrets(t *testing.T) {
	w := newWorld(t)
	require.Error(t, w.call("ContentAddressableStorage/BatchUpdateBlobs", "main", "M", func(ctx context.Context, in server.Instance) error {
		_, err := cache.PutBlob(ctx, in.CAS, []byte("secret-content"))
		require.NoError(t, err)
		return status.Error(codes.Unavailable, "the bucket is away")
	}))
	var line map[string]any
	require.NoError(t, json.Unmarshal(w.log.Bytes(), &line))
	require.Equal(t, "WARN", line["level"])
	require.Equal(t, "Unavailable", line["code"])
	require.Equal(t, "token:ci", line["principal"])
	require.Equal(t, "main", line["instance"])
	require.Equal(t, "//a:b", line["target"])
	require.Contains(t, line["error"], "the bucket is away")
	require.NotEmpty(t, line["request"])
	require.NotContains(t, w.log.String(), "secret")
	w.log.Reset()
	w.lookup("main", "M", "not there")
	require.Empty(t, w.log.String(), "a miss is everyday life")
	require.EqualValues(t, 1, w.Status(all).Errors)
}

func TestPanicsAreCounted(t *testing.T) {
	w := newWorld(t)
	require.Panics(t, func() {
		_ = w.call("ActionCache/GetActionResult", "main", "M", func(context.Context, server.Instance) error { panic("bug") })
	})
	s := w.Status(all)
	require.Zero(t, s.Active)
	require.EqualValues(t, 1, s.Errors)
}

func TestSlowCalls(t *testing.T) {
	w := newWorld(t)
	took := func(d time.Duration) {
		require.NoError(t, w.call("ActionCache/GetActionResult", "main", "M", func(context.Context, server.Instance) error {
			w.clock.advance(d)
			return nil
		}))
	}
	for i := range 100 {
		took(time.Duration(i*37%100) * time.Millisecond)
	}
	got := w.Status(all).Slow
	require.Len(t, got, keepSlow)
	for i, c := range got {
		require.InDelta(t, float64(99-i)/1000, c.Seconds, 1e-9)
	}
	w.clock.advance(keepSlowFor)
	took(time.Microsecond)
	got = w.Status(all).Slow
	require.Len(t, got, 1, "those of an hour ago say nothing of now")
}

func TestHistoryIsBounded(t *testing.T) {
	w := newWorld(t)
	for range keep * 2 {
		w.history.sample(w.point())
		w.clock.advance(step)
	}
	points := w.history.list()
	require.Len(t, points, keep)
	require.Equal(t, w.clock.now().Add(-step).Unix(), points[keep-1].Time)
}

func TestHTTPRequestsAreCounted(t *testing.T) {
	w := newWorld(t)
	h := w.HTTP(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		in, err := w.Instances(server.Single(w.store, w.store)).Instance(r.Context(), "main", server.Read)
		require.NoError(t, err)
		_, err = in.CAS.FindMissing(r.Context(), nil)
		require.NoError(t, err)
		if r.Method == http.MethodPut {
			http.Error(out, "away", http.StatusServiceUnavailable)
		}
	}))
	for _, verb := range []string{http.MethodGet, http.MethodPut, "MADEUP"} {
		out := httptest.NewRecorder()
		h.ServeHTTP(out, httptest.NewRequest(verb, "/main/cas/"+strings.Repeat("0", 64), nil))
		require.NotEmpty(t, out.Header().Get("X-Request-Id"))
	}
	page := get(t, w.Metrics(open(true)), "/metrics", http.StatusOK)
	require.Contains(t, page, `pexcache_requests_total{code="200",instance="main",method="http/GET cas"} 1`)
	require.Contains(t, page, `pexcache_requests_total{code="503",instance="main",method="http/PUT cas"} 1`)
	require.Contains(t, page, `method="http/other cas"`)
	require.NotContains(t, page, "MADEUP")
	require.EqualValues(t, 1, w.Status(all).Errors)
}

func TestTransport(t *testing.T) {
	w := newWorld(t)
	s := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) { out.WriteHeader(http.StatusTeapot) }))
	c := &http.Client{Transport: w.Transport(http.DefaultTransport, nil)}
	resp, err := c.Get(s.URL + "/bucket?list-type=2&prefix=tail%2F")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	s.Close()
	_, err = c.Get(s.URL + "/bucket/key")
	require.Error(t, err)
	page := get(t, w.Metrics(open(true)), "/metrics", http.StatusOK)
	require.Contains(t, page, `pexcache_s3_attempt_seconds_count{code="418",verb="LIST"} 1`)
	require.Contains(t, page, `pexcache_s3_attempt_seconds_count{code="error",verb="GET"} 1`)
}

var result = &repb.ActionResult{StdoutRaw: []byte("x")}

func of(s string) digest.Digest { return digest.FromBytes([]byte(s)) }
