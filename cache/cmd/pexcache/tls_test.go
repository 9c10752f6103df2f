package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/open"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	path string
}

func newAuthority(t *testing.T, dir, name string) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	a := &authority{t: t, cert: cert, key: key}
	a.path = write(t, dir, name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

// sign writes NAME.crt and NAME.key.
func (a *authority) sign(dir, name string, serial int64, uris ...string) (cert, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		require.NoError(a.t, err)
		c.URIs = append(c.URIs, parsed)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, k.Public(), a.key)
	require.NoError(a.t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(a.t, err)
	return write(a.t, dir, name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(a.t, dir, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

// TestTLS serves all interfaces, as a team would, to callers who show certificates, tokens or neither. The client is that
// of pexpress, told by its variables.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	servers, clients, strangers := newAuthority(t, dir, "servers"), newAuthority(t, dir, "clients"), newAuthority(t, dir, "strangers")
	serverCert, serverKey := servers.sign(dir, "server", 1)
	token, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	config := write(t, dir, "config.toml", `
tls-cert = "`+serverCert+`"
tls-key = "`+serverKey+`"
tls-client-ca = "`+clients.path+`"
tokens = "`+write(t, dir, "tokens", line)+`"
[[instance]]
name = "main"
read = ["cert:builder", "cert:spiffe://org/*", "token:ci"]
write-cas = ["cert:builder"]
`)
	p := start(t, "--disk", filepath.Join(dir, "disk"), "--config", config, "--listen", "0.0.0.0:0", "--http-listen", "0.0.0.0:0")
	_, port, err := net.SplitHostPort(p.grpc)
	require.NoError(t, err)
	blob := digest.FromBytes([]byte("by builder"))
	t.Setenv("PEXPRESS_CACHE_CA", servers.path)
	for _, test := range []struct {
		name, cert, key, token string
		reads, writes          codes.Code
	}{
		{name: "builder", reads: codes.OK, writes: codes.OK},
		{name: "reader", token: token, reads: codes.OK, writes: codes.PermissionDenied},
		{name: "workload", reads: codes.OK, writes: codes.PermissionDenied},
		{name: "unknown", reads: codes.PermissionDenied, writes: codes.PermissionDenied},
		{name: "nobody", reads: codes.Unauthenticated, writes: codes.Unauthenticated},
		{name: "impostor", token: "pexcache_made-up", reads: codes.Unauthenticated, writes: codes.Unauthenticated},
		{name: "stranger", reads: codes.Unavailable, writes: codes.Unavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			switch test.name {
			case "builder", "unknown":
				test.cert, test.key = clients.sign(dir, test.name, 2)
			case "workload":
				test.cert, test.key = clients.sign(dir, test.name, 3, "spiffe://org/workload")
			case "stranger":
				test.cert, test.key = strangers.sign(dir, "builder2", 4)
			}
			t.Setenv("PEXPRESS_CACHE_TOKEN", test.token)
			t.Setenv("PEXPRESS_CACHE_CERT", test.cert)
			t.Setenv("PEXPRESS_CACHE_KEY", test.key)
			if test.name == "stranger" { // the client tries again for long: once is enough here
				requireHandshakeFails(t, "127.0.0.1:"+port, servers, test.cert, test.key)
				return
			}
			cas, _, closer, err := open.Open(t.Context(), "grpcs://127.0.0.1:"+port+"/main")
			require.NoError(t, err)
			defer closer.Close()
			require.Equal(t, test.writes, status.Code(cas.Put(t.Context(), blob, strings.NewReader("by builder"))))
			_, err = cache.ReadBlob(t.Context(), cas, blob, 100)
			require.Equal(t, test.reads, status.Code(err), "%v", err)
		})
	}

	// HTTP, with the token as a password.
	pool := x509.NewCertPool()
	pool.AddCert(servers.cert)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	_, httpPort, err := net.SplitHostPort(p.http)
	require.NoError(t, err)
	address := "https://any:" + token + "@127.0.0.1:" + httpPort
	resp, err := client.Get(address + "/main/cas/" + blob.Hash())
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "by builder", string(b))
	t.Setenv("PEXPRESS_CACHE_TOKEN", token)
	out, exit := tool(t, "stats", "--server", "https://127.0.0.1:"+httpPort, "--server-ca", servers.path)
	require.Zero(t, exit, out)
	require.Contains(t, out, "instance main")
	t.Setenv("PEXPRESS_CACHE_TOKEN", "")
	out, exit = tool(t, "stats", "--server", "https://127.0.0.1:"+httpPort, "--server-ca", servers.path)
	require.Equal(t, exitRefused, exit, out)
	code, _ := ask(t, client, http.MethodGet, "https://127.0.0.1:"+httpPort+"/healthz", "", nil)
	require.Equal(t, http.StatusOK, code, "probes have no credentials")
	require.NotContains(t, p.said(), token)
}

func requireHandshakeFails(t *testing.T, address string, servers *authority, cert, key string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(servers.cert)
	c, err := tls.Dial("tcp", address, &tls.Config{
		RootCAs: pool, NextProtos: []string{"h2"},
		// A list of certificates would be passed over, since the server names the authorities that it takes.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	})
	if err == nil { // in TLS 1.3 the client learns of the refusal when it reads
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	require.ErrorContains(t, err, "unknown certificate authority")
}

// TestCertificatesAreReread: what changes on disk is served, and what makes no sense is not.
func TestCertificatesAreReread(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t, dir, "authority")
	cert, key := a.sign(dir, "server", 10)
	c, err := auth.OpenCertificates(cert, key, "")
	require.NoError(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", c.TLS("h2"))
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = conn.(*tls.Conn).Handshake() // the client says how it went
				conn.Close()
			}()
		}
	}()
	served := func() int64 {
		pool := x509.NewCertPool()
		pool.AddCert(a.cert)
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}})
		require.NoError(t, err)
		defer conn.Close()
		require.Equal(t, "h2", conn.ConnectionState().NegotiatedProtocol)
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	require.EqualValues(t, 10, served())
	changed, err := c.Reload()
	require.NoError(t, err)
	require.False(t, changed)
	a.sign(dir, "server", 11)
	changed, err = c.Reload()
	require.NoError(t, err)
	require.True(t, changed)
	require.EqualValues(t, 11, served())

	require.NoError(t, os.WriteFile(cert, []byte("half of a ce"), 0o600))
	_, err = c.Reload()
	require.Error(t, err)
	require.EqualValues(t, 11, served(), "a file that is being written does not end the service")
	require.NoError(t, os.Remove(cert))
	_, err = c.Reload()
	require.ErrorIs(t, err, os.ErrNotExist)
	require.EqualValues(t, 11, served())
}
