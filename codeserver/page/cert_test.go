package page

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// certificate makes a client certificate that is its own authority.
func certificate(t *testing.T, name string) tls.Certificate {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}
}

// TestClientCertificates: a certificate is enough to see and do what its owner may, with the page's key all the same.
func TestClientCertificates(t *testing.T) {
	k := newTokens(t)
	s := newSite(t, guarded(t, k.file, strings.ReplaceAll(grants, "token:operator", "cert:oncall")), func(o *Options) { o.TLS = true })
	own, stranger := certificate(t, "oncall"), certificate(t, "oncall")
	server := httptest.NewUnstartedServer(s.page.Handler())
	server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: x509.NewCertPool()}
	server.TLS.ClientCAs.AddCert(own.Leaf)
	server.StartTLS()
	defer server.Close()
	ask := func(certs []tls.Certificate, method, path, key, body string) (int, string) {
		trust := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, Certificates: certs}, DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(keyHeader, key)
		resp, err := c.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	code, _ := ask(nil, http.MethodGet, "/api/session", "", "")
	require.Equal(t, http.StatusUnauthorized, code)
	code, says := ask([]tls.Certificate{stranger}, http.MethodGet, "/api/session", "", "")
	require.Zero(t, code, "a certificate of another authority's: %s", says)

	mine := []tls.Certificate{own}
	code, says = ask(mine, http.MethodGet, "/api/session", "", "")
	require.Equal(t, http.StatusOK, code)
	var v sessionView
	require.NoError(t, json.Unmarshal([]byte(says), &v))
	require.Equal(t, "cert:oncall", v.Who)
	code, _ = ask(mine, http.MethodPost, rollbackPath, "", rollbackBody)
	require.Equal(t, http.StatusForbidden, code, "a page of another origin has the certificate sent, and not the key")
	code, says = ask(mine, http.MethodPost, rollbackPath, v.Key, rollbackBody)
	require.Equal(t, http.StatusOK, code, says)
	require.Len(t, s.fake.rolled, 1)
}
