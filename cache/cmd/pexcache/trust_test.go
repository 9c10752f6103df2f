package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/auth/authtest"
	"github.com/pexpress/pexpress/cache/digest"
)

const tiersOfTrust = `
[[instance]]
name = "main"
read = ["token:reader", "token:all"]
write-cas = ["token:cas", "token:all"]
write-actions = ["token:actions", "token:all"]
`

// trusted is a node in this process, whose parts the test can look at, and a token for each principal.
type trusted struct {
	*node
	address string
	tokens  map[string]string
}

// serveTrusted starts a node with the principals none, reader, cas, actions and all.
func serveTrusted(t *testing.T, config string) *trusted {
	dir := t.TempDir()
	tr := &trusted{tokens: map[string]string{"nobody": ""}}
	var lines []string
	for _, name := range []string{"none", "reader", "cas", "actions", "all"} {
		token, line, err := auth.NewToken(name)
		require.NoError(t, err)
		tr.tokens[name] = token
		lines = append(lines, line)
	}
	c := defaults()
	c.Disk, c.Tokens = dir+"/disk", write(t, dir, "tokens", strings.Join(lines, "\n"))
	c.Listen, c.HTTPListen = "unix://"+dir+"/grpc", "none"
	cmd := serveCommand()
	require.NoError(t, c.load(cmd, write(t, dir, "config.toml", config)))
	require.NoError(t, c.check())
	log, err := os.CreateTemp(t.TempDir(), "log")
	require.NoError(t, err)
	tr.node = newNode(&c, log, 0)
	ctx, cancel := context.WithCancel(context.Background())
	require.NoError(t, tr.build(ctx, ctx))
	l, err := net.Listen("unix", dir+"/s")
	require.NoError(t, err)
	tr.address = "unix://" + dir + "/s"
	done := make(chan error, 1)
	go func() { done <- tr.grpc.Serve(l) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, tr.close())
		require.NoError(t, <-done)
	})
	return tr
}

func (tr *trusted) dial(t *testing.T, who string) *grpc.ClientConn {
	token, ok := tr.tokens[who]
	require.True(t, ok)
	if token == "" {
		return dialRaw(t, tr.address)
	}
	return dialRaw(t, tr.address, grpc.WithPerRPCCredentials(bearer(token)))
}

// methods returns the full names of all that the server serves.
func (tr *trusted) methods() []string {
	var all []string
	for service, info := range tr.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			all = append(all, service+"/"+m.Name)
		}
	}
	slices.Sort(all)
	return all
}

// openMethods answer everyone: probes. What is served and how it is described is told to those who may do anything at all.
var openMethods = []string{"grpc.health.v1.Health/Check", "grpc.health.v1.Health/List", "grpc.health.v1.Health/Watch"}

// rightsOf lists what each method needs. A method that is served and not listed fails the test: say what it needs.
var rightsOf = map[string]string{
	"build.bazel.remote.asset.v1.Fetch/FetchBlob":                                    "reader",
	"build.bazel.remote.asset.v1.Fetch/FetchDirectory":                               "reader",
	"build.bazel.remote.asset.v1.Push/PushBlob":                                      "actions",
	"build.bazel.remote.asset.v1.Push/PushDirectory":                                 "actions",
	"build.bazel.remote.execution.v2.ActionCache/GetActionResult":                    "reader",
	"build.bazel.remote.execution.v2.ActionCache/UpdateActionResult":                 "actions",
	"build.bazel.remote.execution.v2.Capabilities/GetCapabilities":                   "reader",
	"build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs":       "reader",
	"build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs":     "cas",
	"build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs":     "reader",
	"build.bazel.remote.execution.v2.ContentAddressableStorage/GetTree":              "reader",
	"build.bazel.remote.execution.v2.ContentAddressableStorage/SpliceBlob":           "cas",
	"build.bazel.remote.execution.v2.ContentAddressableStorage/SplitBlob":            "reader",
	"build.bazel.remote.execution.v2.ContentAddressableStorage/GetChunkMapping":      "reader",
	"build.bazel.remote.execution.v2.ContentAddressableStorage/RegisterChunkMapping": "cas",
	"google.bytestream.ByteStream/QueryWriteStatus":                                  "cas",
	"google.bytestream.ByteStream/Read":                                              "reader",
	"google.bytestream.ByteStream/Write":                                             "cas",
}

// TestEveryMethodNeedsARight calls every method that the server serves as everyone.
func TestEveryMethodNeedsARight(t *testing.T) {
	tr := serveTrusted(t, tiersOfTrust)
	secret := []byte("a blob that is there")
	require.NoError(t, call(t, tr.dial(t, "all"), "google.bytestream.ByteStream/Write", "main", secret))
	for _, method := range tr.methods() {
		t.Run(strings.ReplaceAll(method, "/", "."), func(t *testing.T) {
			needs, listed := rightsOf[method]
			for who := range tr.tokens {
				err := call(t, tr.dial(t, who), method, "main", secret)
				code := status.Code(err)
				refused := code == codes.PermissionDenied || code == codes.Unauthenticated
				switch {
				case slices.Contains(openMethods, method):
					require.False(t, refused, "%s: %v", who, err)
				case who == "nobody":
					require.Equal(t, codes.Unauthenticated, code, "%v", err)
				case strings.HasPrefix(method, "grpc.reflection."):
					require.False(t, refused, "%s: %v", who, err)
				case !listed:
					t.Fatalf("%s is served, and this test does not know which right it needs", method)
				case who == needs || who == "all":
					require.False(t, refused, "%s: %v", who, err)
				default:
					require.Equal(t, codes.PermissionDenied, code, "%s: %v", who, err)
				}
			}
		})
	}
	for method := range rightsOf {
		require.Contains(t, tr.methods(), method, "the list is of what is served")
	}
}

// TestNothingIsWritten has principals without the right try to write everything, and looks at what is there.
func TestNothingIsWritten(t *testing.T) {
	tr := serveTrusted(t, tiersOfTrust)
	for who := range tr.tokens {
		if who == "all" {
			continue
		}
		for _, method := range tr.methods() {
			needs := rightsOf[method]
			if needs == who || strings.HasPrefix(method, "grpc.") {
				continue
			}
			require.Error(t, call(t, tr.dial(t, who), method, "main", []byte(who+method)), "%s as %s", method, who)
		}
	}
	require.Zero(t, tr.store.disk.Stats().Entries)
	for who := range tr.tokens {
		require.NotEqual(t, codes.OK, status.Code(call(t, tr.dial(t, who), "google.bytestream.ByteStream/Write", "unknown", []byte("x"))))
	}
	require.Zero(t, tr.store.disk.Stats().Entries)
}

// TestHTTPNeedsARight tries every verb on every kind of path as everyone.
func TestHTTPNeedsARight(t *testing.T) {
	tr := serveTrusted(t, tiersOfTrust)
	s := httptest.NewServer(tr.http.Handler)
	defer s.Close()
	blob := []byte("blob")
	hash := digest.FromBytes(blob).Hash()
	needs := map[string]string{
		"GET /main/cas/": "reader", "HEAD /main/cas/": "reader", "PUT /main/cas/": "cas",
		"GET /main/ac/": "reader", "HEAD /main/ac/": "reader", "PUT /main/ac/": "actions",
	}
	for _, path := range []string{"/main/cas/", "/main/ac/", "/cas/", "/ac/", "/other/cas/", "/main/blake3/cas/", "/metrics", "/status.json", "/", "/debug/pprof/"} {
		for _, verb := range []string{"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
			for who, token := range tr.tokens {
				if who == "all" {
					continue
				}
				url := s.URL + path
				if strings.HasSuffix(path, "cas/") || strings.HasSuffix(path, "ac/") {
					url += hash
				}
				code, body := ask(t, s.Client(), verb, url, token, bytes.NewReader(blob))
				right := strings.Replace(verb+" "+path, "blake3/", "", 1)
				switch {
				case who == "nobody":
					require.Equal(t, http.StatusUnauthorized, code, "%s %s", verb, path)
				case path == "/" || path == "/status.json" || path == "/metrics":
					if verb == "GET" || verb == "HEAD" {
						require.Equal(t, who != "reader", code == http.StatusForbidden, "%s %s as %s: %d %s", verb, path, who, code, body)
					} else {
						require.GreaterOrEqual(t, code, 400)
					}
				case needs[right] == who && !strings.HasPrefix(right, "PUT"):
					require.Equal(t, http.StatusNotFound, code, "%s %s as %s: %s", verb, path, who, body)
				case needs[right] == who:
				case needs[right] != "":
					require.Equal(t, http.StatusForbidden, code, "%s %s as %s: %s", verb, path, who, body)
				default:
					require.GreaterOrEqual(t, code, 400, "%s %s as %s", verb, path, who)
				}
			}
		}
	}
	// With the rights alone each wrote, at most, what it had the right to.
	ns, _, err := tr.store.Namespace("main")
	require.NoError(t, err)
	_, err = cache.ReadBlob(t.Context(), ns, digest.FromBytes(blob), 10)
	require.NoError(t, err, "token:cas wrote it")
	for _, name := range []string{"", "other"} {
		ns, _, err := tr.store.Namespace(name)
		require.NoError(t, err)
		_, err = cache.ReadBlob(t.Context(), ns, digest.FromBytes(blob), 10)
		require.ErrorIs(t, err, cache.ErrNotFound)
	}
}

// TestUpdateEnabledIsTrue: a client is told what it may do.
func TestUpdateEnabledIsTrue(t *testing.T) {
	tr := serveTrusted(t, strings.Replace(tiersOfTrust, `"token:reader"`, `"token:*"`, 1))
	for who, want := range map[string]bool{"reader": false, "cas": false, "actions": true, "all": true} {
		got, err := repb.NewCapabilitiesClient(tr.dial(t, who)).GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{InstanceName: "main"})
		require.NoError(t, err)
		require.Equal(t, want, got.GetCacheCapabilities().GetActionCacheUpdateCapabilities().GetUpdateEnabled(), who)
	}
}

// TestPrincipalIsRecorded: each ActionResult says who wrote it, so that purge can find it.
func TestPrincipalIsRecorded(t *testing.T) {
	tr := serveTrusted(t, tiersOfTrust)
	action := digest.FromBytes([]byte("action"))
	_, err := repb.NewActionCacheClient(tr.dial(t, "all")).UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{
		InstanceName: "main", ActionDigest: action.Proto(), ActionResult: &repb.ActionResult{ExitCode: 1},
	})
	require.NoError(t, err)
	ns, err := tr.store.disk.Namespace("main")
	require.NoError(t, err)
	b, writer, err := ns.ActionBytes(t.Context(), action)
	require.NoError(t, err)
	require.Equal(t, "token:all", writer)
	var got repb.ActionResult
	require.NoError(t, proto.Unmarshal(b, &got))
	require.EqualValues(t, 1, got.GetExitCode())
}

// TestOIDC: the jobs of a CI get in by what their platform says of them.
func TestOIDC(t *testing.T) {
	issuer := authtest.New(t)
	tr := serveTrusted(t, `
[[oidc]]
issuer = "`+issuer.URL+`"
audience = "pexcache"
[[oidc.rule]]
claims = { repository = "org/*", ref_protected = "true" }
principal = "main:{repository}"
[[oidc.rule]]
claims = { repository = "org/*" }
principal = "pr:{repository}"
[[instance]]
name = "main"
read = ["oidc:*"]
write-cas = ["oidc:main:org/app"]
write-actions = ["oidc:main:org/app"]
`)
	for name, test := range map[string]struct {
		claims map[string]any
		method string
		code   codes.Code
	}{
		"main writes":             {nil, "google.bytestream.ByteStream/Write", codes.OK},
		"main of another app":     {map[string]any{"repository": "org/other"}, "google.bytestream.ByteStream/Write", codes.PermissionDenied},
		"a pull request reads":    {map[string]any{"ref_protected": false}, "build.bazel.remote.execution.v2.Capabilities/GetCapabilities", codes.OK},
		"a pull request writes":   {map[string]any{"ref_protected": false}, "google.bytestream.ByteStream/Write", codes.PermissionDenied},
		"another organisation":    {map[string]any{"repository": "evil/app"}, "build.bazel.remote.execution.v2.Capabilities/GetCapabilities", codes.Unauthenticated},
		"a token for others":      {map[string]any{"aud": "other"}, "build.bazel.remote.execution.v2.Capabilities/GetCapabilities", codes.Unauthenticated},
		"a token that is expired": {map[string]any{"exp": 1}, "build.bazel.remote.execution.v2.Capabilities/GetCapabilities", codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialRaw(t, tr.address, grpc.WithPerRPCCredentials(bearer(issuer.Sign(t, time.Now(), test.claims))))
			require.Equal(t, test.code, status.Code(call(t, conn, test.method, "main", []byte("x"))))
		})
	}
}
