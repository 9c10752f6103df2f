package auth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/auth/authtest"
)

func withToken(t *testing.T) (*auth.Authenticator, string) {
	token, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(path, []byte(line), 0o600))
	tokens, err := auth.OpenTokens(path)
	require.NoError(t, err)
	return auth.New(auth.Options{Verifiers: []auth.Verifier{tokens}}), token
}

// fakeStream is a stream of which only the context matters.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func TestGRPC(t *testing.T) {
	a, token := withToken(t)
	for _, test := range []struct {
		method  string
		headers []string
		code    codes.Code
		who     string
	}{
		{"/a.Service/Method", []string{"Bearer " + token}, codes.OK, "token:ci"},
		{"/a.Service/Method", []string{"bearer " + token}, codes.OK, "token:ci"},
		{"/a.Service/Method", nil, codes.Unauthenticated, ""},
		{"/a.Service/Method", []string{"Bearer x"}, codes.Unauthenticated, ""},
		{"/a.Service/Method", []string{"Bearer"}, codes.Unauthenticated, ""},
		{"/a.Service/Method", []string{token}, codes.Unauthenticated, ""},
		{"/a.Service/Method", []string{"Basic " + token}, codes.Unauthenticated, ""},
		{"/a.Service/Method", []string{"Bearer " + token, "Bearer " + token}, codes.Unauthenticated, ""},
		{"/grpc.health.v1.Health/Check", nil, codes.OK, ""},
		{"/grpc.health.v1.HealthX/Check", nil, codes.Unauthenticated, ""},
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"authorization": test.headers})
		who := "not called"
		_, err := a.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: test.method}, func(ctx context.Context, _ any) (any, error) {
			who = cache.PrincipalOf(ctx)
			return nil, nil
		})
		require.Equal(t, test.code, status.Code(err), "%+v", test)
		if test.code == codes.OK {
			require.Equal(t, test.who, who)
		} else {
			require.Equal(t, "not called", who)
		}
		who = "not called"
		err = a.Stream(nil, &fakeStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: test.method}, func(_ any, s grpc.ServerStream) error {
			who = cache.PrincipalOf(s.Context())
			return nil
		})
		require.Equal(t, test.code, status.Code(err), "%+v", test)
		if test.code == codes.OK {
			require.Equal(t, test.who, who)
		} else {
			require.Equal(t, "not called", who)
		}
	}
}

func TestHTTP(t *testing.T) {
	a, token := withToken(t)
	h := a.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := w.Write([]byte(cache.PrincipalOf(r.Context())))
		require.NoError(t, err)
	}))
	basic := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	header := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Authorization"] = values }
	}
	for _, test := range []struct {
		set  func(*http.Request)
		code int
	}{
		{basic("", token), 200},
		{basic("anyone", token), 200},
		{header("Bearer " + token), 200},
		{basic(token, ""), 401},
		{basic("anyone", "x"), 401},
		{header("Bearer x"), 401},
		{header("Bearer "+token, "Bearer "+token), 401},
		{header(), 401},
		{header("Digest x"), 401},
	} {
		r := httptest.NewRequest(http.MethodGet, "/cas/x", nil)
		test.set(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, test.code, w.Code)
		if test.code == 200 {
			require.Equal(t, "token:ci", w.Body.String())
		} else {
			require.Contains(t, w.Header().Get("WWW-Authenticate"), `Basic realm="pexpress: `)
			require.NotContains(t, w.Body.String(), token)
		}
	}
}

func TestHTTPWhileTheIssuerIsAway(t *testing.T) {
	i, c := authtest.New(t), newClock()
	i.Down.Store(true)
	a := auth.New(auth.Options{Verifiers: []auth.Verifier{verifier(t, i, c)}})
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+i.Sign(t, c.now(), nil))
	w := httptest.NewRecorder()
	a.HTTP(http.NotFoundHandler()).ServeHTTP(w, r)
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	_, err := a.Unary(metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", r.Header.Get("Authorization"))), nil,
		&grpc.UnaryServerInfo{}, nil)
	require.Equal(t, codes.Unavailable, status.Code(err))
}
