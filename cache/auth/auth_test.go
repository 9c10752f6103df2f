package auth_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/auth"
)

func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		pattern, name string
		match         bool
	}{
		{"token:ci", "token:ci", true},
		{"token:ci", "token:ci2", false},
		{"token:*", "token:ci", true},
		{"token:*", "cert:token:ci", false},
		{"*", "oidc:anyone", true},
		{"*", auth.Anonymous, false},
		{"anon*", auth.Anonymous, false},
		{auth.Anonymous, auth.Anonymous, true},
		{"*", "", false},
		{"", "", false},
		{"oidc:repo:org/*:ref:refs/heads/main", "oidc:repo:org/app:ref:refs/heads/main", true},
		{"oidc:repo:org/*:ref:refs/heads/main", "oidc:repo:other/app:ref:refs/heads/main", false},
		{"oidc:a*a", "oidc:a", false},
		{"oidc:*b*c", "oidc:abbc", true},
		{"oidc:*b*c", "oidc:acb", false},
	} {
		require.Equal(t, test.match, auth.Patterns{"x", test.pattern}.Match(test.name), "%+v", test)
	}
	require.False(t, auth.Patterns(nil).Match("token:ci"))
}

func certificate(name string, uris ...string) *x509.Certificate {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, parsed)
	}
	return c
}

func TestCertificates(t *testing.T) {
	a := auth.New(auth.Options{})
	for want, c := range map[string]*x509.Certificate{
		"cert:builder":              certificate("builder"),
		"cert:spiffe://org/builder": certificate("builder", "spiffe://org/builder"),
	} {
		got, err := a.Principal(t.Context(), auth.Credentials{Certificate: c})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for says, c := range map[string]*x509.Certificate{
		"neither a URI":      certificate(""),
		"has 2 URIs":         certificate("x", "spiffe://org/a", "spiffe://org/b"),
		"control characters": certificate("a\nb"),
		"longer than 256":    certificate(strings.Repeat("x", 300)),
	} {
		_, err := a.Principal(t.Context(), auth.Credentials{Certificate: c})
		require.ErrorIs(t, err, auth.ErrRefused)
		require.ErrorContains(t, err, says)
	}
}

func TestAnonymous(t *testing.T) {
	_, err := auth.New(auth.Options{}).Principal(t.Context(), auth.Credentials{})
	require.ErrorIs(t, err, auth.ErrRefused)
	got, err := auth.New(auth.Options{Anonymous: true}).Principal(t.Context(), auth.Credentials{})
	require.NoError(t, err)
	require.Equal(t, auth.Anonymous, got)
	_, err = auth.New(auth.Options{Anonymous: true}).Principal(t.Context(), auth.Credentials{Token: "nobody's"})
	require.ErrorIs(t, err, auth.ErrRefused, "a bad token is not the same as none")
}

func TestTokens(t *testing.T) {
	token, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	second, secondLine, err := auth.NewToken("ci")
	require.NoError(t, err)
	require.NotEqual(t, token, second)
	require.NotContains(t, line, token)
	path := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(path, []byte("# who may come in\n\n"+line+"\n"+secondLine+"\n"), 0o600))
	tokens, err := auth.OpenTokens(path)
	require.NoError(t, err)
	a := auth.New(auth.Options{Verifiers: []auth.Verifier{tokens}})
	for _, good := range []string{token, second} {
		got, err := a.Principal(t.Context(), auth.Credentials{Token: good, Certificate: certificate("proxy")})
		require.NoError(t, err)
		require.Equal(t, "token:ci", got, "the token says more than the certificate")
	}
	for _, bad := range []string{token + "x", token[1:], strings.Fields(line)[1], "ci", strings.Repeat("x", 1<<20)} {
		_, err := a.Principal(t.Context(), auth.Credentials{Token: bad})
		require.ErrorIs(t, err, auth.ErrRefused)
		require.NotContains(t, err.Error(), bad, "errors never hold a token")
	}

	// Revoked: the line is gone.
	require.NoError(t, os.WriteFile(path, []byte(secondLine), 0o600))
	changed, err := tokens.Reload()
	require.NoError(t, err)
	require.True(t, changed)
	changed, err = tokens.Reload()
	require.NoError(t, err)
	require.False(t, changed)
	_, err = a.Principal(t.Context(), auth.Credentials{Token: token})
	require.ErrorIs(t, err, auth.ErrRefused)
	_, err = a.Principal(t.Context(), auth.Credentials{Token: second})
	require.NoError(t, err)

	// A file that makes no sense changes nothing, and what it says is not shown.
	for _, b := range []string{"ci " + token, "ci", "ci a b", strings.Repeat("0", 64) + " ci"} {
		require.NoError(t, os.WriteFile(path, []byte(b), 0o600))
		_, err := tokens.Reload()
		require.ErrorContains(t, err, "line 1")
		require.NotContains(t, err.Error(), token)
	}
	_, err = a.Principal(t.Context(), auth.Credentials{Token: second})
	require.NoError(t, err)
	_, _, err = auth.NewToken("two words")
	require.Error(t, err)
	_, err = auth.OpenTokens(filepath.Join(t.TempDir(), "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
