package auth_test

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/auth/authtest"
)

type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func verifier(t *testing.T, i *authtest.Issuer, c *clock, rules ...auth.Rule) *auth.OIDC {
	v, err := auth.NewOIDC([]auth.Issuer{{URL: i.URL, Audience: "pexcache", Rules: rules}}, auth.OIDCOptions{Now: c.now})
	require.NoError(t, err)
	return v
}

func TestOIDC(t *testing.T) {
	i, c := authtest.New(t), newClock()
	v := verifier(t, i, c)
	name, err := v.Verify(t.Context(), i.Sign(t, c.now(), nil))
	require.NoError(t, err)
	require.Equal(t, "oidc:"+i.URL+"#repo:org/app:ref:refs/heads/main", name)

	stranger := authtest.New(t)
	stranger.Server.Config.Handler = http.NotFoundHandler()
	forged := stranger.Sign(t, c.now(), map[string]any{"iss": i.URL})
	good := i.Sign(t, c.now(), nil)
	parts := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	for what, token := range map[string]string{
		"signed by another":  forged,
		"changed":            parts[0] + "." + strings.Split(i.Sign(t, c.now(), map[string]any{"sub": "root"}), ".")[1] + "." + parts[2],
		"without signature":  none,
		"for another":        i.Sign(t, c.now(), map[string]any{"aud": "other"}),
		"expired":            i.Sign(t, c.now().Add(-2*time.Hour), nil),
		"not valid yet":      i.Sign(t, c.now(), map[string]any{"nbf": c.now().Add(time.Hour).Unix()}),
		"without a subject":  i.Sign(t, c.now(), map[string]any{"sub": ""}),
		"with lists for sub": i.Sign(t, c.now(), map[string]any{"sub": []string{"a", "b"}}),
	} {
		_, err := v.Verify(t.Context(), token)
		require.ErrorIs(t, err, auth.ErrRefused, what)
		require.NotContains(t, err.Error(), token, what)
	}
	a := auth.New(auth.Options{Verifiers: []auth.Verifier{v}})
	for _, token := range []string{"x", "a.b.c", "..", stranger.Sign(t, c.now(), nil)} {
		_, err := a.Principal(t.Context(), auth.Credentials{Token: token})
		require.ErrorContains(t, err, "no one knows the token")
	}
}

func TestClocksMayDiffer(t *testing.T) {
	i, c := authtest.New(t), newClock()
	v := verifier(t, i, c)
	token := i.Sign(t, c.now(), map[string]any{"exp": c.now().Add(-30 * time.Second).Unix()})
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err, "half a minute is within what clocks differ by")
	c.advance(time.Minute)
	_, err = v.Verify(t.Context(), token)
	require.ErrorIs(t, err, auth.ErrRefused)
	_, err = v.Verify(t.Context(), i.Sign(t, c.now().Add(2*time.Minute), map[string]any{"nbf": c.now().Add(2 * time.Minute).Unix()}))
	require.NoError(t, err, "an issuer whose clock is ahead")
}

func TestRules(t *testing.T) {
	i, c := authtest.New(t), newClock()
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
		got, err := v.Verify(t.Context(), i.Sign(t, c.now(), claims))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for says, claims := range map[string]map[string]any{
		"no rule":           {"repository": "evil/app", "groups": "b"},
		"needs the claim":   {"ref_protected": false, "groups": nil},
		"no rule of the co": {"repository": nil, "groups": map[string]string{"admins": "admins"}},
	} {
		_, err := v.Verify(t.Context(), i.Sign(t, c.now(), claims))
		require.ErrorIs(t, err, auth.ErrRefused)
		require.ErrorContains(t, err, says)
	}
}

// TestIssuerAway: who is known stays known, who is new is told to come back, and recovery needs nobody.
func TestIssuerAway(t *testing.T) {
	i, c := authtest.New(t), newClock()
	v := verifier(t, i, c)
	i.Down.Store(true)
	_, err := v.Verify(t.Context(), i.Sign(t, c.now(), nil))
	require.ErrorIs(t, err, auth.ErrUnavailable)
	i.Down.Store(false)
	_, err = v.Verify(t.Context(), i.Sign(t, c.now(), nil))
	require.ErrorIs(t, err, auth.ErrUnavailable, "it is left alone for a moment")
	require.EqualValues(t, 1, i.Config.Load())
	c.advance(10 * time.Second)
	_, err = v.Verify(t.Context(), i.Sign(t, c.now(), nil))
	require.NoError(t, err)

	i.Down.Store(true)
	c.advance(time.Hour)
	_, err = v.Verify(t.Context(), i.Sign(t, c.now(), map[string]any{"sub": "another"}))
	require.NoError(t, err, "its key is known")
	i.Rotate(t, "2")
	_, err = v.Verify(t.Context(), i.Sign(t, c.now(), nil))
	require.ErrorIs(t, err, auth.ErrUnavailable, "the new key is not")
	i.Down.Store(false)
	_, err = v.Verify(t.Context(), i.Sign(t, c.now(), nil))
	require.NoError(t, err)
}

// TestMadeUpKeysAskOnce: tokens that name keys nobody has must not make this server a hammer on its issuer.
func TestMadeUpKeysAskOnce(t *testing.T) {
	i, c := authtest.New(t), newClock()
	v := verifier(t, i, c)
	_, err := v.Verify(t.Context(), i.Sign(t, c.now(), nil))
	require.NoError(t, err)
	i.KeyID = "made up"
	for range 20 {
		_, err := v.Verify(t.Context(), i.Sign(t, c.now(), map[string]any{"jti": rand.Text()}))
		require.Error(t, err)
	}
	require.EqualValues(t, 1, i.Asked.Load())
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
