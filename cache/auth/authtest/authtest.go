// Package authtest is an OpenID Connect issuer for tests: small, real, and on this host.
package authtest

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
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Issuer is an OpenID Connect issuer on this host.
type Issuer struct {
	*httptest.Server
	KeyID  string       // that its tokens name
	Down   atomic.Bool  // it answers errors
	Asked  atomic.Int64 // for its keys
	Config atomic.Int64 // for where they are
	key    *rsa.PrivateKey
	kid    string // that is published
}

// New starts an issuer, until the test ends.
func New(t *testing.T) *Issuer {
	t.Helper()
	i := &Issuer{}
	i.Rotate(t, "1")
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.Config.Add(1)
		i.answer(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.Asked.Add(1)
		e := big.NewInt(int64(i.key.E)).Bytes()
		i.answer(w, map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": i.kid, "n": b64(i.key.N.Bytes()), "e": b64(e),
		}}})
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

func (i *Issuer) answer(w http.ResponseWriter, v any) {
	if i.Down.Load() {
		http.Error(w, "out of order", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that is gone fails its own test
}

// Rotate replaces its key by a new one.
func (i *Issuer) Rotate(t *testing.T, kid string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	i.key, i.kid, i.KeyID = key, kid, kid
}

// b64 is how JSON Web Tokens write bytes.
func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Sign returns a token for the audience pexcache; claims replace those of a good one.
func (i *Issuer) Sign(t *testing.T, now time.Time, claims map[string]any) string {
	t.Helper()
	all := map[string]any{
		"iss": i.URL, "aud": "pexcache", "sub": "repo:org/app:ref:refs/heads/main", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(),
		"repository": "org/app", "ref": "refs/heads/main", "ref_protected": true, "groups": []string{"a", "admins"},
	}
	for k, v := range claims {
		all[k] = v
	}
	head, err := json.Marshal(map[string]string{"alg": "RS256", "kid": i.KeyID, "typ": "JWT"})
	require.NoError(t, err)
	body, err := json.Marshal(all)
	require.NoError(t, err)
	text := b64(head) + "." + b64(body)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	require.NoError(t, err)
	return text + "." + b64(sig)
}
