package auth_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/auth"
)

// issuer is an OpenID Connect issuer on this host.
type issuer struct {
	*httptest.Server
	key    *rsa.PrivateKey
	kid    string
	down   atomic.Bool
	asked  atomic.Int64 // for its keys
	config atomic.Int64 // for where they are
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{kid: "1"}
	i.rotate(t, "1")
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.config.Add(1)
		i.answer(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.asked.Add(1)
		e := big.NewInt(int64(i.key.E)).Bytes()
		i.answer(w, map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": i.kid, "n": b64(i.key.N.Bytes()), "e": b64(e),
		}}})
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) answer(w http.ResponseWriter, v any) {
	if i.down.Load() {
		http.Error(w, "out of order", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that is gone fails its own test
}

func (i *issuer) rotate(t *testing.T, kid string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	i.key, i.kid = key, kid
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign returns a token; claims replace those of a good one.
func (i *issuer) sign(t *testing.T, now time.Time, claims map[string]any) string {
	all := map[string]any{
		"iss": i.URL, "aud": "pexcache", "sub": "repo:org/app:ref:refs/heads/main", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(),
		"repository": "org/app", "ref": "refs/heads/main", "ref_protected": true, "groups": []string{"a", "admins"},
	}
	for k, v := range claims {
		all[k] = v
	}
	head, err := json.Marshal(map[string]string{"alg": "RS256", "kid": i.kid, "typ": "JWT"})
	require.NoError(t, err)
	body, err := json.Marshal(all)
	require.NoError(t, err)
	text := b64(head) + "." + b64(body)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	require.NoError(t, err)
	return text + "." + b64(sig)
}

type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func verifier(t *testing.T, i *issuer, c *clock, rules ...auth.Rule) *auth.OIDC {
	v, err := auth.NewOIDC([]auth.Issuer{{URL: i.URL, Audience: "pexcache", Rules: rules}}, auth.OIDCOptions{Now: c.now})
	require.NoError(t, err)
	return v
}

func TestOIDC(t *testing.T) {
	i, c := newIssuer(t), newClock()
	v := verifier(t, i, c)
	name, err := v.Verify(t.Context(), i.sign(t, c.now(), nil))
	require.NoError(t, err)
	require.Equal(t, "oidc:repo:org/app:ref:refs/heads/main", name)

	stranger := newIssuer(t)
	stranger.Server.Config.Handler = http.NotFoundHandler()
	forged := stranger.sign(t, c.now(), map[string]any{"iss": i.URL})
	good := i.sign(t, c.now(), nil)
	parts := strings.Split(good, ".")
	none := b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	for what, token := range map[string]string{
		"signed by another":  forged,
		"changed":            parts[0] + "." + strings.Split(i.sign(t, c.now(), map[string]any{"sub": "root"}), ".")[1] + "." + parts[2],
		"without signature":  none,
		"for another":        i.sign(t, c.now(), map[string]any{"aud": "other"}),
		"expired":            i.sign(t, c.now().Add(-2*time.Hour), nil),
		"not valid yet":      i.sign(t, c.now(), map[string]any{"nbf": c.now().Add(time.Hour).Unix()}),
		"without a subject":  i.sign(t, c.now(), map[string]any{"sub": ""}),
		"with lists for sub": i.sign(t, c.now(), map[string]any{"sub": []string{"a", "b"}}),
	} {
		_, err := v.Verify(t.Context(), token)
		require.ErrorIs(t, err, auth.ErrRefused, what)
		require.NotContains(t, err.Error(), token, what)
	}
	a := auth.New(auth.Options{Verifiers: []auth.Verifier{v}})
	for _, token := range []string{"x", "a.b.c", "..", stranger.sign(t, c.now(), nil)} {
		_, err := a.Principal(t.Context(), auth.Credentials{Token: token})
		require.ErrorContains(t, err, "no one knows the token")
	}
}

func TestClocksMayDiffer(t *testing.T) {
	i, c := newIssuer(t), newClock()
	v := verifier(t, i, c)
	token := i.sign(t, c.now(), map[string]any{"exp": c.now().Add(-30 * time.Second).Unix()})
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err, "half a minute is within what clocks differ by")
	c.advance(time.Minute)
	_, err = v.Verify(t.Context(), token)
	require.ErrorIs(t, err, auth.ErrRefused)
	_, err = v.Verify(t.Context(), i.sign(t, c.now().Add(2*time.Minute), map[string]any{"nbf": c.now().Add(2 * time.Minute).Unix()}))
	require.NoError(t, err, "an issuer whose clock is ahead")
}

func TestRules(t *testing.T) {
	i, c := newIssuer(t), newClock()
	v := verifier(
		t, i, c,
		auth.Rule{Claims: map[string]string{"repository": "org/app", "ref_protected": "true", "ref": "refs/heads/*"}, Principal: "protected:{repository}"},
		auth.Rule{Claims: map[string]string{"groups": "admins"}, Principal: "admin"},
		auth.Rule{Claims: map[string]string{"repository": "org/*"}, Principal: "{repository}/{run_id}"},
	)
	for want, claims := range map[string]map[string]any{
		"oidc:protected:org/app": nil,
		"oidc:admin":             {"ref_protected": false},
		"oidc:org/app/12":        {"ref_protected": false, "groups": []string{"a"}, "run_id": 12},
	} {
		got, err := v.Verify(t.Context(), i.sign(t, c.now(), claims))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for says, claims := range map[string]map[string]any{
		"no rule":           {"repository": "evil/app", "groups": "b"},
		"needs the claim":   {"ref_protected": false, "groups": nil},
		"no rule of the co": {"repository": nil, "groups": map[string]string{"admins": "admins"}},
	} {
		_, err := v.Verify(t.Context(), i.sign(t, c.now(), claims))
		require.ErrorIs(t, err, auth.ErrRefused)
		require.ErrorContains(t, err, says)
	}
}

// TestIssuerAway: who is known stays known, who is new is told to come back, and recovery needs nobody.
func TestIssuerAway(t *testing.T) {
	i, c := newIssuer(t), newClock()
	v := verifier(t, i, c)
	i.down.Store(true)
	_, err := v.Verify(t.Context(), i.sign(t, c.now(), nil))
	require.ErrorIs(t, err, auth.ErrUnavailable)
	i.down.Store(false)
	_, err = v.Verify(t.Context(), i.sign(t, c.now(), nil))
	require.ErrorIs(t, err, auth.ErrUnavailable, "it is left alone for a moment")
	require.EqualValues(t, 1, i.config.Load())
	c.advance(10 * time.Second)
	_, err = v.Verify(t.Context(), i.sign(t, c.now(), nil))
	require.NoError(t, err)

	i.down.Store(true)
	c.advance(time.Hour)
	_, err = v.Verify(t.Context(), i.sign(t, c.now(), map[string]any{"sub": "another"}))
	require.NoError(t, err, "its key is known")
	i.rotate(t, "2")
	_, err = v.Verify(t.Context(), i.sign(t, c.now(), nil))
	require.ErrorIs(t, err, auth.ErrUnavailable, "the new key is not")
	i.down.Store(false)
	_, err = v.Verify(t.Context(), i.sign(t, c.now(), nil))
	require.NoError(t, err)
}

// TestMadeUpKeysAskOnce: tokens that name keys nobody has must not make this server a hammer on its issuer.
func TestMadeUpKeysAskOnce(t *testing.T) {
	i, c := newIssuer(t), newClock()
	v := verifier(t, i, c)
	_, err := v.Verify(t.Context(), i.sign(t, c.now(), nil))
	require.NoError(t, err)
	i.kid = "made up"
	for range 20 {
		_, err := v.Verify(t.Context(), i.sign(t, c.now(), map[string]any{"jti": rand.Text()}))
		require.Error(t, err)
	}
	require.EqualValues(t, 1, i.asked.Load())
}

func TestIssuersAreChecked(t *testing.T) {
	for says, i := range map[string]auth.Issuer{
		"use https":               {URL: "http://issuer.example", Audience: "a"},
		"which audience":          {URL: "https://issuer.example"},
		"a rule names no":         {URL: "https://issuer.example", Audience: "a", Rules: []auth.Rule{{}}},
		"use https://…: keys":     {URL: "issuer.example", Audience: "a"},
		"missing protocol scheme": {URL: ":", Audience: "a"},
	} {
		_, err := auth.NewOIDC([]auth.Issuer{i}, auth.OIDCOptions{})
		require.ErrorContains(t, err, says)
	}
	twice := auth.Issuer{URL: "https://issuer.example", Audience: "a"}
	_, err := auth.NewOIDC([]auth.Issuer{twice, twice}, auth.OIDCOptions{})
	require.ErrorContains(t, err, "twice")
}
