package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/auth/authtest"
)

// TestForgedAlgorithms signs with what everyone may read: nothing, or the public key as a shared secret.
func TestForgedAlgorithms(t *testing.T) {
	i, c := authtest.New(t), newClock()
	v := verifier(t, i, c)
	good := strings.Split(i.Sign(t, c.now(), nil), ".")
	resp, err := http.Get(i.URL + "/keys")
	require.NoError(t, err)
	defer resp.Body.Close()
	keys, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var said struct{ Keys []struct{ N string } }
	require.NoError(t, json.Unmarshal(keys, &said))
	modulus, err := base64.RawURLEncoding.DecodeString(said.Keys[0].N)
	require.NoError(t, err)
	head := func(alg string) string {
		b, err := json.Marshal(map[string]string{"alg": alg, "kid": i.KeyID})
		require.NoError(t, err)
		return base64.RawURLEncoding.EncodeToString(b) + "." + good[1]
	}
	for _, alg := range []string{"none", "None", "nOnE", "", "RS256"} {
		for _, signature := range []string{"", "AA"} {
			_, err := v.Verify(t.Context(), head(alg)+"."+signature)
			require.ErrorIs(t, err, auth.ErrRefused, "%q", alg)
		}
	}
	for _, secret := range [][]byte{modulus, keys, []byte(said.Keys[0].N), nil} {
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(head("HS256")))
		_, err := v.Verify(t.Context(), head("HS256")+"."+base64.RawURLEncoding.EncodeToString(m.Sum(nil)))
		require.ErrorIs(t, err, auth.ErrRefused)
		m = hmac.New(sha512.New, secret)
		m.Write([]byte(head("HS512")))
		_, err = v.Verify(t.Context(), head("HS512")+"."+base64.RawURLEncoding.EncodeToString(m.Sum(nil)))
		require.ErrorIs(t, err, auth.ErrRefused)
	}
	_, err = v.Verify(t.Context(), strings.Join(good, "."))
	require.NoError(t, err, "the one that they were made of")
}

// TestRememberedTokensExpire: a token that was good is looked at anew when its time is over.
func TestRememberedTokensExpire(t *testing.T) {
	i, c := authtest.New(t), newClock()
	v := verifier(t, i, c)
	token := i.Sign(t, c.now(), nil)
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err)
	c.advance(2 * time.Hour)
	_, err = v.Verify(t.Context(), token)
	require.ErrorIs(t, err, auth.ErrRefused)
}

// TestIssuersAreTwo: one subject of two issuers is two principals, and rules that could mix them up are refused.
func TestIssuersAreTwo(t *testing.T) {
	a, b, c := authtest.New(t), authtest.New(t), newClock()
	v, err := auth.NewOIDC([]auth.Issuer{{URL: a.URL, Audience: "pexcache"}, {URL: b.URL, Audience: "pexcache"}}, auth.OIDCOptions{Now: c.now})
	require.NoError(t, err)
	first, err := v.Verify(t.Context(), a.Sign(t, c.now(), nil))
	require.NoError(t, err)
	second, err := v.Verify(t.Context(), b.Sign(t, c.now(), nil))
	require.NoError(t, err)
	require.NotEqual(t, first, second)

	rules := func(principals ...string) (rs []auth.Rule) {
		for _, p := range principals {
			rs = append(rs, auth.Rule{Principal: p})
		}
		return rs
	}
	for _, test := range []struct {
		a, b []auth.Rule
		ok   bool
	}{
		{nil, nil, true},
		{rules("github:{repository}"), rules("gitlab:{project}"), true},
		{rules("{iss}/{sub}"), rules("{iss}/{sub}"), true},
		{rules("admin"), rules("other", "builder"), true},
		{rules("{repository}"), rules("{repository}"), false},
		{rules("x:{repository}"), rules("{sub}"), false},
		{rules("admin"), rules("other", "admin"), false},
		{rules("admin"), rules("{group}"), false},
		{rules("a{group}n"), rules("admin"), false},
		{rules("{a}-builder"), nil, false}, // a subject may end like that
		{rules("{sub}"), nil, false},
	} {
		_, err := auth.NewOIDC([]auth.Issuer{{URL: "https://a.example", Audience: "x", Rules: test.a}, {URL: "https://b.example", Audience: "x", Rules: test.b}}, auth.OIDCOptions{})
		if test.ok {
			require.NoError(t, err, "%v", test)
		} else {
			require.ErrorContains(t, err, "may name one principal", "%v", test)
		}
	}
}
