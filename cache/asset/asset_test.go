package asset_test

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/asset"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// served is the two services over a memory cache, and an origin with what it was asked.
type served struct {
	assetpb.FetchClient
	assetpb.PushClient
	store  *memory.Store
	origin *httptest.Server
	mu     sync.Mutex
	asked  []*http.Request
	now    time.Time
	may    map[server.Access]bool
}

// Instance implements server.Instances.
func (s *served) Instance(_ context.Context, name string, want server.Access) (server.Instance, error) {
	if !s.may[want] {
		return server.Instance{}, status.Errorf(codes.PermissionDenied, "not allowed in %q", name)
	}
	return server.Instance{CAS: s.store, ActionCache: s.store}, nil
}

func (s *served) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// last returns the last request to the origin.
func (s *served) last() *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[len(s.asked)-1]
}

// serve starts them. Of the origin's paths, /blob/TEXT is that text, /chunked/TEXT the same without a length, /status/N
// an error, /to?URL a redirect, /slow nothing for long and /secret a text for those with the right token.
func serve(t *testing.T, change func(*asset.Options)) *served {
	s := &served{store: memory.New(), now: time.Unix(1_000_000, 0), may: map[server.Access]bool{server.Read: true, server.WriteCAS: true, server.WriteActions: true}}
	end := make(chan struct{})
	s.origin = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r)
		s.mu.Unlock()
		_, arg, _ := strings.Cut(r.URL.Path[1:], "/")
		switch {
		case strings.HasPrefix(r.URL.Path, "/blob/"):
			fmt.Fprint(w, arg)
		case strings.HasPrefix(r.URL.Path, "/chunked/"):
			w.(http.Flusher).Flush()
			fmt.Fprint(w, arg)
		case strings.HasPrefix(r.URL.Path, "/status/"):
			var n int
			_, _ = fmt.Sscan(arg, &n)
			w.WriteHeader(n)
		case r.URL.Path == "/to":
			w.Header().Set("Location", r.URL.RawQuery)
			w.WriteHeader(http.StatusFound)
		case r.URL.Path == "/slow":
			select {
			case <-r.Context().Done():
			case <-end:
			}
		case r.URL.Path == "/secret" && r.Header.Get("Authorization") == "Bearer token":
			fmt.Fprint(w, "for you")
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	allow, err := asset.ParseAllowed([]string{s.origin.URL})
	require.NoError(t, err)
	o := asset.Options{Allow: allow, Spool: t.TempDir(), Now: func() time.Time { return s.now }}
	if change != nil {
		change(&o)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer()
	asset.Register(g, s, o)
	go func() { _ = g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		close(end)
		s.origin.Close()
	})
	s.FetchClient, s.PushClient = assetpb.NewFetchClient(conn), assetpb.NewPushClient(conn)
	return s
}

func with(pairs ...string) (qs []*assetpb.Qualifier) {
	for i := 0; i < len(pairs); i += 2 {
		qs = append(qs, &assetpb.Qualifier{Name: pairs[i], Value: pairs[i+1]})
	}
	return qs
}

func sri(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func sri512(text string) string {
	sum := sha512.Sum512([]byte(text))
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// fetch returns the content of what was fetched, or the code and message of the answer's status.
func (s *served) fetch(t *testing.T, req *assetpb.FetchBlobRequest) (text string, code codes.Code, says string) {
	resp, err := s.FetchBlob(t.Context(), req)
	require.NoError(t, err)
	if st := resp.GetStatus(); st.GetCode() != 0 {
		require.Nil(t, resp.GetBlobDigest())
		return "", codes.Code(st.GetCode()), st.GetMessage()
	}
	fn, err := digest.FunctionFromProto(resp.GetDigestFunction())
	require.NoError(t, err)
	d, err := fn.FromProto(resp.GetBlobDigest())
	require.NoError(t, err)
	b, err := cache.ReadBlob(t.Context(), s.store, d, 1<<30)
	require.NoError(t, err)
	return string(b), codes.OK, ""
}

func TestFetchBlob(t *testing.T) {
	for _, fn := range digest.Functions {
		for _, path := range []string{"/blob/", "/chunked/"} {
			for i, qs := range [][]*assetpb.Qualifier{
				nil, with("checksum.sri", sri("text")), with("checksum.sri", sri("x")+" "+sri512("text")), with("bazel.canonical_id", "id"),
			} {
				s := serve(t, nil)
				req := &assetpb.FetchBlobRequest{Uris: []string{s.origin.URL + path + "text"}, Qualifiers: qs, DigestFunction: fn.Proto()}
				for range 2 {
					text, code, says := s.fetch(t, req)
					require.Equal(t, codes.OK, code, "%d: %s", i, says)
					require.Equal(t, "text", text)
				}
				require.Equal(t, 1, s.requests(), "the second time it is known")
			}
		}
	}
}

func TestChecksums(t *testing.T) {
	s := serve(t, nil)
	for _, path := range []string{"/blob/", "/chunked/"} {
		for _, sum := range []string{sri("other"), sri512("other"), sri("a") + " " + sri512("b")} {
			_, code, says := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{s.origin.URL + path + "text"}, Qualifiers: with("checksum.sri", sum)})
			require.Equal(t, codes.Aborted, code, says)
		}
	}
	missing, err := s.store.FindMissing(t.Context(), []digest.Digest{digest.FromBytes([]byte("text")), digest.FromBytes([]byte("other"))})
	require.NoError(t, err)
	require.Contains(t, missing, digest.FromBytes([]byte("other")))

	// What the CAS has already is not fetched, whatever it is called.
	_, err = cache.PutBlob(t.Context(), s.store, []byte("uploaded"))
	require.NoError(t, err)
	before := s.requests()
	text, code, _ := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{"https://elsewhere.example/x"}, Qualifiers: with("checksum.sri", sri("uploaded"))})
	require.Equal(t, codes.OK, code)
	require.Equal(t, "uploaded", text)
	require.Equal(t, before, s.requests())
}

// TestOtherURIs: each URI is tried in turn.
func TestOtherURIs(t *testing.T) {
	s := serve(t, nil)
	u := s.origin.URL
	resp, err := s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{Uris: []string{"https://elsewhere.example/x", u + "/status/404", u + "/blob/a", u + "/blob/b"}})
	require.NoError(t, err)
	require.Equal(t, u+"/blob/a", resp.GetUri())
	resp, err = s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{Uris: []string{u + "/status/404", u + "/status/500"}})
	require.NoError(t, err)
	require.Equal(t, int32(codes.NotFound), resp.GetStatus().GetCode())
	require.Equal(t, u+"/status/404", resp.GetUri())
}

func TestOriginsFailures(t *testing.T) {
	s := serve(t, func(o *asset.Options) { o.MaxBytes = 1000; o.Timeout = 100 * time.Millisecond })
	long := strings.Repeat("x", 1001)
	for path, want := range map[string]codes.Code{
		"/status/404": codes.NotFound, "/status/410": codes.NotFound, "/status/401": codes.PermissionDenied, "/status/403": codes.PermissionDenied,
		"/status/500": codes.Unavailable, "/status/429": codes.ResourceExhausted, "/status/206": codes.Aborted, "/slow": codes.DeadlineExceeded,
		"/blob/" + long: codes.ResourceExhausted, "/chunked/" + long: codes.ResourceExhausted, "/to?/status/404": codes.NotFound,
	} {
		_, code, says := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{s.origin.URL + path}})
		require.Equal(t, want, code, "%.30s: %s", path, says)
	}
	for _, uri := range []string{"", "x", "http://", "://", "\x00", "urn:uuid:f81d4fae"} {
		_, code, _ := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{uri}})
		require.Equal(t, codes.NotFound, code, uri)
	}
	_, code, _ := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{s.origin.URL + "/slow"}, Timeout: durationpb.New(time.Millisecond)})
	require.Equal(t, codes.DeadlineExceeded, code)
	_, err := s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{Uris: []string{s.origin.URL + "/slow"}, Timeout: durationpb.New(0)})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, code, _ = s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{s.origin.URL + "/to?/to?/to?/to?/to?/to?/to?/to?/to?/to?/to?/to?/blob/x"}})
	require.NotEqual(t, codes.OK, code, "redirects end")
}

// TestForbiddenOrigins is about requests that a server must not make for others.
func TestForbiddenOrigins(t *testing.T) {
	s := serve(t, nil)
	hidden := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	t.Cleanup(hidden.Close)
	_, port, err := net.SplitHostPort(hidden.Listener.Addr().String())
	require.NoError(t, err)
	for _, uri := range []string{
		hidden.URL, "http://localhost:" + port, "http://[::1]:" + port, "http://0.0.0.0:" + port, "http://2130706433:" + port,
		"http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:" + port,
		strings.Replace(s.origin.URL, "http", "https", 1), strings.Replace(s.origin.URL, "://", "://user:password@", 1),
		s.origin.URL + "/to?" + hidden.URL, s.origin.URL + "/to?http://169.254.169.254/",
		strings.Replace(s.origin.URL, "127.0.0.1", "127.0.0.2", 1), s.origin.URL + ".example/",
	} {
		_, code, says := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{uri}})
		require.NotEqual(t, codes.OK, code, uri)
		require.NotContains(t, says, "password")
	}

	// A name that is allowed, but has an address that is not public.
	_, port, err = net.SplitHostPort(s.origin.Listener.Addr().String())
	require.NoError(t, err)
	named := "http://localhost:" + port
	for _, list := range [][]string{{named}, {named, "10.0.0.0/8"}, {named, "127.0.0.0/8", "::1/128"}} {
		s := serve(t, func(o *asset.Options) { o.Allow, err = asset.ParseAllowed(list) })
		require.NoError(t, err)
		_, code, says := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{named + "/blob/text"}})
		if len(list) == 3 {
			require.Equal(t, codes.OK, code, says)
		} else {
			require.Equal(t, codes.PermissionDenied, code, says)
			require.Contains(t, says, "not public")
		}
	}
	none := serve(t, func(o *asset.Options) { o.Allow = asset.Allowed{} })
	_, code, _ := none.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{none.origin.URL + "/blob/x"}})
	require.Equal(t, codes.PermissionDenied, code)
}

// TestHeaders sends the client's headers where it wants them, and nowhere else.
func TestHeaders(t *testing.T) {
	s := serve(t, nil)
	other := serve(t, nil)
	allow, err := asset.ParseAllowed([]string{s.origin.URL, other.origin.URL})
	require.NoError(t, err)
	both := serve(t, func(o *asset.Options) { o.Allow = allow })
	uri := s.origin.URL + "/secret"
	for _, qs := range [][]*assetpb.Qualifier{
		with("http_header:Authorization", "Bearer token"), with("http_header_url:0:authorization", "Bearer token"),
		with("bazel.auth_headers", fmt.Sprintf(`{%q: {"Authorization": "Bearer token"}}`, uri)),
		with("bazel.auth_headers", fmt.Sprintf(`{%q: {"Authorization": ["Bearer token"]}}`, uri)),
		with("http_header_url:0:Authorization", "Bearer token", "http_header:Authorization", "wrong", "bazel.auth_headers", `{}`),
	} {
		text, code, says := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{uri}, Qualifiers: qs})
		require.Equal(t, codes.OK, code, says)
		require.Equal(t, "for you", text)
	}
	require.Equal(t, 1, s.requests(), "all of them are the same")
	_, code, _ := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{uri}})
	require.Equal(t, codes.PermissionDenied, code, "what took a token is not for those without")
	_, code, says := s.fetch(t, &assetpb.FetchBlobRequest{Uris: []string{uri + "?sig=hush"}, Qualifiers: with("http_header:Authorization", "Bearer hush")})
	require.Equal(t, codes.PermissionDenied, code)
	require.NotContains(t, says, "hush")

	_, code, says = both.fetch(t, &assetpb.FetchBlobRequest{
		Uris: []string{s.origin.URL + "/to?" + other.origin.URL + "/blob/x"}, Qualifiers: with("http_header:X-Secret", "hush"),
	})
	require.Equal(t, codes.OK, code, says)
	require.Equal(t, "hush", s.last().Header.Get("X-Secret"))
	require.Empty(t, other.last().Header.Get("X-Secret"))
	require.Empty(t, other.last().Header.Get("Referer"))
}

func TestQualifiersAreChecked(t *testing.T) {
	s := serve(t, nil)
	uri := s.origin.URL + "/blob/x"
	_, err := s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{Uris: []string{uri}, Qualifiers: with("vcs.commit", "abc", "checksum.sri", sri("x"), "color", "red")})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	var fields []string
	for _, d := range status.Convert(err).Details() {
		for _, v := range d.(*errdetails.BadRequest).GetFieldViolations() {
			require.Equal(t, "qualifiers.name", v.GetField())
			fields = append(fields, v.GetDescription())
		}
	}
	require.Equal(t, []string{`"vcs.commit" not supported`, `"color" not supported`}, fields)
	for _, qs := range [][]*assetpb.Qualifier{
		with("checksum.sri", "x"), with("checksum.sri", ""), with("checksum.sri", "md5-AAAA"), with("checksum.sri", "sha256-AAAA"),
		with("checksum.sri", "sha256-!!!!"), with("http_header_url:1:X", "x"), with("http_header_url:-1:X", "x"), with("http_header_url:X", "x"),
		with("http_header:Host", "x"), with("http_header:range", "bytes=0-1"), with("http_header:", "x"), with("http_header:X", "a\r\nb: c"),
		with("http_header:X Y", "x"), with("bazel.auth_headers", "secret"), with("bazel.auth_headers", fmt.Sprintf(`{%q: {"X": 5}}`, uri)),
		with("bazel.canonical_id", "a", "bazel.canonical_id", "b"),
	} {
		_, err := s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{Uris: []string{uri}, Qualifiers: qs})
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", qs)
		require.NotContains(t, err.Error(), "secret")
	}
	_, err = s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	_, err = s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{Uris: []string{uri}, DigestFunction: repb.DigestFunction_MD5})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.Zero(t, s.requests())
}

func TestAge(t *testing.T) {
	s := serve(t, nil)
	began := s.now
	fetch := func(oldest time.Time) (fetched bool) {
		before := s.requests()
		_, code, says := s.fetch(t, &assetpb.FetchBlobRequest{
			Uris: []string{s.origin.URL + "/blob/x"}, Qualifiers: with("checksum.sri", sri("x")), OldestContentAccepted: timestamppb.New(oldest),
		})
		require.Equal(t, codes.OK, code, says)
		return s.requests() > before
	}
	require.True(t, fetch(began))
	s.now = began.Add(time.Hour)
	require.False(t, fetch(began.Add(-time.Second)))
	require.False(t, fetch(began))
	require.True(t, fetch(began.Add(time.Second)), "it is too old")
	require.False(t, fetch(began.Add(30*time.Minute)), "the second fetch is new enough")
}

func TestPush(t *testing.T) {
	for _, fn := range digest.Functions {
		s := serve(t, nil)
		data := []byte("pushed")
		d := fn.FromBytes(data)
		uris := []string{"urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "https://example.org/x"}
		push := &assetpb.PushBlobRequest{
			Uris: uris, Qualifiers: with("vcs.commit", "abc", "resource_type", "x"), BlobDigest: d.Proto(), DigestFunction: fn.Proto(),
			ExpireAt: timestamppb.New(s.now.Add(time.Hour)),
		}
		_, err := s.PushBlob(t.Context(), push)
		require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v", err)
		require.ErrorContains(t, err, d.Hash())
		require.NoError(t, cache.PutAll(t.Context(), s.store, []cache.Blob{{Digest: d, Data: data}}))
		_, err = s.PushBlob(t.Context(), push)
		require.NoError(t, err)
		for _, uri := range uris {
			resp, err := s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{
				Uris: []string{"https://other.example", uri}, Qualifiers: with("resource_type", "x", "vcs.commit", "abc"), DigestFunction: fn.Proto(),
			})
			require.NoError(t, err)
			require.Equal(t, d.Hash(), resp.GetBlobDigest().GetHash())
			require.Equal(t, uri, resp.GetUri())
			require.Equal(t, push.GetExpireAt().AsTime(), resp.GetExpiresAt().AsTime())
		}
		_, code, _ := s.fetch(t, &assetpb.FetchBlobRequest{Uris: uris[1:], DigestFunction: fn.Proto()})
		require.Equal(t, codes.PermissionDenied, code, "other qualifiers name another asset")
		s.now = s.now.Add(time.Hour)
		_, err = s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{Uris: uris, Qualifiers: push.GetQualifiers(), DigestFunction: fn.Proto()})
		require.Equal(t, codes.InvalidArgument, status.Code(err), "it has expired")
		_, err = s.PushBlob(t.Context(), &assetpb.PushBlobRequest{Uris: uris, BlobDigest: d.Proto(), Qualifiers: with("http_header:X", "x"), DigestFunction: fn.Proto()})
		require.Equal(t, codes.InvalidArgument, status.Code(err))

		// A pushed blob is found also by those who would bring credentials to its origin.
		push.ExpireAt, push.Qualifiers = nil, nil
		_, err = s.PushBlob(t.Context(), push)
		require.NoError(t, err)
		text, code, says := s.fetch(t, &assetpb.FetchBlobRequest{Uris: uris, Qualifiers: with("http_header:Authorization", "x"), DigestFunction: fn.Proto()})
		require.Equal(t, codes.OK, code, says)
		require.Equal(t, "pushed", text)
	}
}

func TestPushDirectory(t *testing.T) {
	s := serve(t, nil)
	file := digest.FromBytes([]byte("file"))
	root, err := cache.PutMessage(t.Context(), s.store, &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: file.Proto()}}})
	require.NoError(t, err)
	push := &assetpb.PushDirectoryRequest{Uris: []string{"u"}, Qualifiers: with("directory", "sub"), RootDirectoryDigest: root.Proto()}
	_, err = s.PushDirectory(t.Context(), push)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, file.Hash(), "the whole tree has to be there")
	_, err = cache.PutBlob(t.Context(), s.store, []byte("file"))
	require.NoError(t, err)
	_, err = s.PushDirectory(t.Context(), push)
	require.NoError(t, err)
	resp, err := s.FetchDirectory(t.Context(), &assetpb.FetchDirectoryRequest{Uris: push.GetUris(), Qualifiers: push.GetQualifiers()})
	require.NoError(t, err)
	require.Equal(t, root.Hash(), resp.GetRootDirectoryDigest().GetHash())
	resp, err = s.FetchDirectory(t.Context(), &assetpb.FetchDirectoryRequest{Uris: push.GetUris()})
	require.NoError(t, err)
	require.Equal(t, int32(codes.NotFound), resp.GetStatus().GetCode())
	_, code, _ := s.fetch(t, &assetpb.FetchBlobRequest{Uris: push.GetUris()})
	require.Equal(t, codes.NotFound, code, "a directory is no blob")

	gone := digest.FromBytes([]byte("gone"))
	push.ReferencesBlobs = []*repb.Digest{gone.Proto()}
	_, err = s.PushDirectory(t.Context(), push)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, gone.Hash())
}

// TestRights takes one right away after the other.
func TestRights(t *testing.T) {
	s := serve(t, nil)
	a, b := s.origin.URL+"/blob/a", s.origin.URL+"/blob/b"
	fetch := func(uri string) error {
		_, err := s.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{Uris: []string{uri}})
		return err
	}
	push := func() error {
		d, err := cache.PutBlob(t.Context(), s.store, []byte("x"))
		require.NoError(t, err)
		_, err = s.PushBlob(t.Context(), &assetpb.PushBlobRequest{Uris: []string{"u"}, BlobDigest: d.Proto()})
		return err
	}
	require.NoError(t, fetch(a))
	require.NoError(t, push())

	s.may[server.WriteActions] = false
	require.Equal(t, codes.PermissionDenied, status.Code(push()))
	require.NoError(t, fetch(b))
	before := s.requests()
	require.NoError(t, fetch(b))
	require.Equal(t, before+1, s.requests(), "it was not remembered")

	s.may[server.WriteCAS] = false
	require.Equal(t, codes.PermissionDenied, status.Code(fetch(b)))
	require.NoError(t, fetch(a), "what is remembered may be read")
	require.Equal(t, before+1, s.requests())

	s.may[server.Read] = false
	require.Equal(t, codes.PermissionDenied, status.Code(fetch(a)))
	_, err := s.FetchDirectory(t.Context(), &assetpb.FetchDirectoryRequest{Uris: []string{"u"}})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
}
