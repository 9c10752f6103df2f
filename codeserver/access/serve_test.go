package access_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/auth/authtest"
	"github.com/pexpress/pexpress/cache/server"
	"github.com/pexpress/pexpress/codeserver/access"
	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// fake is a control API that does nothing, so that only the access to it is tried.
type fake struct {
	codeserverpb.UnimplementedCodeServerServer
}

var locations = []*codeserverpb.Location{{Name: "prod"}, {Name: "staging"}, {Name: "pr-7"}}

func (fake) List(context.Context, *codeserverpb.ListRequest) (*codeserverpb.ListResponse, error) {
	return &codeserverpb.ListResponse{Locations: locations}, nil
}

func (fake) Watch(_ *codeserverpb.WatchRequest, s grpc.ServerStreamingServer[codeserverpb.Location]) error {
	for _, l := range locations {
		if err := s.Send(l); err != nil {
			return err
		}
	}
	return nil
}

func (fake) Deploy(r *codeserverpb.DeployRequest, s grpc.ServerStreamingServer[codeserverpb.DeployEvent]) error {
	return s.Send(&codeserverpb.DeployEvent{Event: &codeserverpb.DeployEvent_Deployed{Deployed: &codeserverpb.Deployed{
		Location: &codeserverpb.Location{Name: r.GetLocation()},
	}}})
}

func (fake) Remove(context.Context, *codeserverpb.RemoveRequest) (*codeserverpb.RemoveResponse, error) {
	return &codeserverpb.RemoveResponse{}, nil
}

// serve serves the fake by a configuration, and returns its host:port.
func serve(t *testing.T, config string, more ...grpc.ServerOption) string {
	t.Helper()
	return serveWithin(t, config, access.Limits(), more...)
}

func serveWithin(t *testing.T, config string, limits server.Limits, more ...grpc.ServerOption) string {
	t.Helper()
	c, err := access.Load(write(t, "config.toml", config))
	require.NoError(t, err)
	opts, err := c.ServerOptions(func(err error) { t.Log(err) })
	require.NoError(t, err)
	g := grpc.NewServer(append(append(opts, limits.Options()...), more...)...)
	codeserverpb.RegisterCodeServerServer(g, fake{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = g.Serve(c.Listener(l)) }()
	t.Cleanup(g.Stop)
	return l.Addr().String()
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func dial(t *testing.T, address string, c client.Credentials) *client.Client {
	t.Helper()
	srv, err := client.DialWith(t.Context(), address, c)
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Close() })
	return srv
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func names(all []*codeserverpb.Location) (names []string) {
	for _, l := range all {
		names = append(names, l.GetName())
	}
	return names
}

func deploy(t *testing.T, c *client.Client, location string) error {
	stream, err := c.Deploy(t.Context(), &codeserverpb.DeployRequest{Location: location})
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

const grants = `
[[grant]]
locations = ["staging", "pr-*"]
deploy = ["token:ci"]
[[grant]]
locations = ["*"]
read = ["cert:viewer"]
deploy = ["cert:admin"]
remove = ["cert:admin"]
`

// TestTokens tries what each caller may do, over the loopback interface.
func TestTokens(t *testing.T) {
	token, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	stranger, other, err := auth.NewToken("stranger") // known, with no right
	require.NoError(t, err)
	file := write(t, "tokens", line+"\n"+other+"\n")
	address := serve(t, `tokens = "`+file+`"`+grants)

	ci := dial(t, address, client.Credentials{Token: token})
	require.NoError(t, deploy(t, ci, "staging"))
	for _, name := range []string{"prod", "", "../staging", "pr-1/../prod", "pr-1/prod", "staging\x00", "STAGING", "staging ", "*"} {
		err := deploy(t, ci, name)
		require.Equal(t, codes.PermissionDenied, status.Code(err), "%q: %v", name, err)
	}
	_, err = ci.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "staging"})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.ErrorContains(t, err, "token:ci has no right to remove")
	list, err := ci.List(t.Context(), &codeserverpb.ListRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{"staging", "pr-7"}, names(list.GetLocations()), "what one may not read is not shown")
	require.Equal(t, []string{"staging", "pr-7"}, watch(t, ci, ""))
	_, err = watchErr(t, ci, "prod")
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	all, err := ci.DeployAll(t.Context(), &codeserverpb.DeployAllRequest{
		Deploys: []*codeserverpb.DeployRequest{{Location: "staging"}, {Location: "prod"}},
	})
	require.NoError(t, err)
	_, err = all.Recv()
	require.Equal(t, codes.PermissionDenied, status.Code(err), "one location that is not allowed is one too many: %v", err)

	list, err = dial(t, address, client.Credentials{Token: stranger}).List(t.Context(), &codeserverpb.ListRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetLocations())
	for _, wrong := range []string{"", "wrong", token + "x", token[:len(token)-1], strings.Fields(line)[1]} {
		c := dial(t, address, client.Credentials{Token: wrong})
		_, err := c.List(t.Context(), &codeserverpb.ListRequest{})
		require.Equal(t, codes.Unauthenticated, status.Code(err), "%q: %v", wrong, err)
		require.Equal(t, codes.Unauthenticated, status.Code(deploy(t, c, "staging")))
		if len(wrong) > 5 {
			require.NotContains(t, err.Error(), wrong, "an error must not repeat a token")
		}
	}
	require.NoError(t, os.WriteFile(file, []byte(other+"\n"), 0o600))
	require.Equal(t, codes.Unauthenticated, status.Code(deploy(t, ci, "staging")), "a token that is taken out is refused at once")
}

func watch(t *testing.T, c *client.Client, location string) []string {
	seen, err := watchErr(t, c, location)
	require.ErrorContains(t, err, "EOF")
	return seen
}

func watchErr(t *testing.T, c *client.Client, location string) (seen []string, err error) {
	stream, err := c.Watch(t.Context(), &codeserverpb.WatchRequest{Location: location})
	require.NoError(t, err)
	for {
		l, err := stream.Recv()
		if err != nil {
			return seen, err
		}
		seen = append(seen, l.GetName())
	}
}

// TestUnknownMethod has a service that no rule is for refused, whoever calls.
func TestUnknownMethod(t *testing.T) {
	token, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	address := serve(t, `tokens = "`+write(t, "tokens", line)+`"`+strings.ReplaceAll(grants, `"staging", "pr-*"`, `"*"`),
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return nil }))
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	ctx := withToken(t.Context(), token)
	err = conn.Invoke(ctx, "/pexpress.codeserver.v1.CodeServer/Added", &codeserverpb.ListRequest{}, &codeserverpb.ListResponse{})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
}

// TestCertificates shows client certificates of the right and of another authority, and tokens within TLS.
func TestCertificates(t *testing.T) {
	servers, clients, strangers := newAuthority(t), newAuthority(t), newAuthority(t)
	cert, key := servers.sign("server")
	token, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	address := "grpcs://" + serve(t, `
tls-cert = "`+cert+`"
tls-key = "`+key+`"
tls-client-ca = "`+clients.path+`"
tokens = "`+write(t, "tokens", line)+`"`+grants)
	with := func(a *authority, name string) client.Credentials {
		cert, key := a.sign(name)
		return client.Credentials{Cert: cert, Key: key, CA: servers.path}
	}
	admin := dial(t, address, with(clients, "admin"))
	require.NoError(t, deploy(t, admin, "prod"))
	_, err = admin.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "prod"})
	require.NoError(t, err)
	viewer := dial(t, address, with(clients, "viewer"))
	require.Equal(t, []string{"prod", "staging", "pr-7"}, watch(t, viewer, ""))
	require.Equal(t, codes.PermissionDenied, status.Code(deploy(t, viewer, "prod")))
	require.NoError(t, deploy(t, dial(t, address, client.Credentials{Token: token, CA: servers.path}), "staging"))

	forged := dial(t, address, with(strangers, "admin"))
	require.Equal(t, codes.Unavailable, status.Code(deploy(t, forged, "prod")), "the handshake fails")
	nobody := dial(t, address, client.Credentials{CA: servers.path})
	require.Equal(t, codes.Unauthenticated, status.Code(deploy(t, nobody, "prod")))
	impostor := dial(t, address, client.Credentials{Token: token, CA: strangers.path})
	require.Equal(t, codes.Unavailable, status.Code(deploy(t, impostor, "staging")), "a server of another authority gets no token")
}

// TestRenewed replaces the server's files while it serves; bad ones change nothing.
func TestRenewed(t *testing.T) {
	first, second, clients := newAuthority(t), newAuthority(t), newAuthority(t)
	cert, key := first.sign("server")
	address := "grpcs://" + serve(t, `
tls-cert = "`+cert+`"
tls-key = "`+key+`"
tls-client-ca = "`+clients.path+`"`+grants)
	clientCert, clientKey := clients.sign("admin")
	deployBy := func(ca string) error {
		return deploy(t, dial(t, address, client.Credentials{Cert: clientCert, Key: clientKey, CA: ca}), "prod")
	}
	require.NoError(t, deployBy(first.path))
	require.NoError(t, os.WriteFile(cert, []byte("half a"), 0o600))
	require.NoError(t, deployBy(first.path))
	newCert, newKey := second.sign("server")
	require.NoError(t, os.Rename(newCert, cert))
	require.NoError(t, os.Rename(newKey, key))
	require.NoError(t, deployBy(second.path))
	require.Error(t, deployBy(first.path))
}

// TestIssuer shows a token of an OpenID Connect issuer.
func TestIssuer(t *testing.T) {
	issuer := authtest.New(t)
	address := serve(t, `
[[oidc]]
issuer = "`+issuer.URL+`"
audience = "codeserver"
[[oidc.rule]]
claims = { ref = "refs/heads/main" }
principal = "{repository}"
[[grant]]
locations = ["prod"]
deploy = ["oidc:org/app"]
`)
	with := func(claims map[string]any) *client.Client {
		return dial(t, address, client.Credentials{Token: issuer.Sign(t, time.Now(), claims)})
	}
	require.NoError(t, deploy(t, with(map[string]any{"aud": "codeserver"}), "prod"))
	for code, claims := range map[codes.Code]map[string]any{
		codes.Unauthenticated:  {"aud": "pexcache"},
		codes.PermissionDenied: {"aud": "codeserver", "repository": "org/other"},
	} {
		require.Equal(t, code, status.Code(deploy(t, with(claims), "prod")), "%v", claims)
	}
	branch := with(map[string]any{"aud": "codeserver", "ref": "refs/heads/x"})
	require.Equal(t, codes.Unauthenticated, status.Code(deploy(t, branch, "prod")))
}
