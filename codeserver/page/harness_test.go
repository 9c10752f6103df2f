package page

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/codeserver/access"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// hostile is what a location, a log or an error may say.
const hostile = "<script>document.title='owned'</script>\"'&\r\n\nevent: state\ndata: {}\n\n\u2028"

func root(c string) *repb.Digest { return &repb.Digest{Hash: strings.Repeat(c, 64), SizeBytes: 1} }

var (
	one = strings.Repeat("1", 64)
	two = strings.Repeat("2", 64)
)

// fake is a control API with two locations of its own.
type fake struct {
	codeserverpb.UnimplementedCodeServerServer

	mu        sync.Mutex
	locations []*codeserverpb.Location
	changes   chan struct{}
	rolled    chan *codeserverpb.RollbackRequest
	rollback  error
	hold      chan struct{} // nil: a rollback does not wait
	lines     []string
	follow    bool
}

func version(name, state string) *codeserverpb.Version {
	return &codeserverpb.Version{
		Name: name, State: codeserverpb.State(codeserverpb.State_value[state]), DeployedAt: timestamppb.New(time.Unix(1e9, 0)),
		Spec: &codeserverpb.VersionSpec{DepsRoot: root("d"), SourceRoot: root("e"), Env: map[string]string{"PASSWORD": "hush"}},
		Usage: &codeserverpb.Usage{
			Cpu: durationpb.New(time.Second), MemoryBytes: 1 << 20, Requests: 10, LatencyP50: durationpb.New(1500 * time.Microsecond),
		},
		Stages: []*codeserverpb.Stage{{Name: "ready", Took: durationpb.New(time.Second), FetchedBytes: 5}},
	}
}

func newFake() *fake {
	return &fake{
		changes: make(chan struct{}, 1), rolled: make(chan *codeserverpb.RollbackRequest, 1), lines: []string{"first", "second"},
		locations: []*codeserverpb.Location{
			{Name: "shop", Current: one, Previous: two, Versions: []*codeserverpb.Version{version(one, "READY"), version(two, "STOPPED")}},
			{Name: "web", Current: one, Versions: []*codeserverpb.Version{version(one, "READY")}},
		},
	}
}

func (f *fake) List(context.Context, *codeserverpb.ListRequest) (*codeserverpb.ListResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &codeserverpb.ListResponse{Locations: f.locations}, nil
}

func (f *fake) Logs(r *codeserverpb.LogsRequest, s grpc.ServerStreamingServer[codeserverpb.LogLine]) error {
	for _, l := range f.lines {
		if err := s.Send(&codeserverpb.LogLine{Time: timestamppb.New(time.Unix(1e9, 0)), Text: l}); err != nil {
			return err
		}
	}
	if f.follow {
		<-s.Context().Done()
		return s.Context().Err()
	}
	return nil
}

func (f *fake) Rollback(r *codeserverpb.RollbackRequest, s grpc.ServerStreamingServer[codeserverpb.DeployEvent]) error {
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-s.Context().Done():
			return status.FromContextError(s.Context().Err()).Err()
		}
	}
	err := s.Send(&codeserverpb.DeployEvent{Event: &codeserverpb.DeployEvent_Stage{Stage: &codeserverpb.Stage{Name: "ready"}}})
	if err == nil {
		f.rolled <- r
		err = f.rollback
	}
	return err
}

func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// site is a page that is served.
type site struct {
	t    *testing.T
	fake *fake
	page *Page
	*httptest.Server
}

func newSite(t *testing.T, change ...func(*Options)) *site {
	f := newFake()
	o := Options{Control: f, Trees: memory.New(), Name: "host", Changes: func() (<-chan struct{}, func()) { return f.changes, func() {} }}
	for _, c := range change {
		c(&o)
	}
	s := &site{t: t, fake: f, page: New(o)}
	s.Server = httptest.NewServer(s.page.Handler())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.page.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		s.CloseClientConnections()
		s.Close()
	})
	require.Eventually(t, func() bool { _, at, _ := s.page.feed.latest(); return !at.IsZero() }, 10*time.Second, time.Millisecond)
	return s
}

// guarded lets in those whose tokens are in a file.
func guarded(t *testing.T, tokens, grants string) func(*Options) {
	file := filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, os.WriteFile(file, []byte("tokens = \""+tokens+"\"\n"+grants), 0o600))
	c, err := access.Load(file)
	require.NoError(t, err)
	return func(o *Options) {
		o.Authenticator, err = c.Authenticator(func(err error) { t.Log(err) })
		require.NoError(t, err)
		o.Policy, err = c.Policy()
		require.NoError(t, err)
	}
}

// caller is a browser: what it sends with each request.
type caller struct {
	*site
	key    string
	cookie *http.Cookie
	header map[string]string
	host   string
}

func (s *site) caller() *caller { return &caller{site: s, header: map[string]string{}} }

// withKey has the key that the page gets from the codeserver.
func (s *site) withKey() *caller {
	c := s.caller()
	var v sessionView
	c.json(http.StatusOK, &v, http.MethodGet, "/api/session", "")
	c.key = v.Key
	require.NotEmpty(s.t, c.key)
	return c
}

func (c *caller) do(method, path, body string) *http.Response {
	c.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.URL+path, r)
	require.NoError(c.t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	if c.key != "" {
		req.Header.Set(keyHeader, c.key)
	}
	if c.cookie != nil {
		req.AddCookie(c.cookie)
	}
	req.Host = c.host
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	require.NoError(c.t, err)
	c.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// says returns the body of an answer with that status.
func (c *caller) says(code int, method, path, body string) string {
	c.t.Helper()
	resp := c.do(method, path, body)
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	require.Equal(c.t, code, resp.StatusCode, "%s %s: %s", method, path, b)
	return string(b)
}

func (c *caller) json(code int, into any, method, path, body string) {
	c.t.Helper()
	require.NoError(c.t, json.Unmarshal([]byte(c.says(code, method, path, body)), into))
}

// event is one server-sent event.
type event struct{ kind, data string }

// eventsOf reads events as a browser does.
func eventsOf(t *testing.T, resp *http.Response) func() (event, bool) {
	t.Helper()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 64<<20)
	return func() (e event, ok bool) {
		for lines.Scan() {
			line := lines.Text()
			if line == "" {
				return e, true
			}
			if kind, ok := strings.CutPrefix(line, "event: "); ok {
				e.kind = kind
			} else if data, ok := strings.CutPrefix(line, "data: "); ok {
				e.data = data
			} else {
				require.Fail(t, "no line of an event", "%q", line)
			}
		}
		return e, false
	}
}

// state returns the first state that the caller is sent.
func (c *caller) state() (v stateView) {
	c.t.Helper()
	e, ok := eventsOf(c.t, c.do(http.MethodGet, "/api/events", ""))()
	require.True(c.t, ok)
	require.Equal(c.t, "state", e.kind)
	require.NoError(c.t, json.Unmarshal([]byte(e.data), &v))
	return v
}

var errNotReady = status.Error(codes.FailedPrecondition, "the version did not become ready: "+hostile)
