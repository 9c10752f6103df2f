package examples

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// file writes a file beside the project, and returns its path.
func (h *host) file(name, content string) string {
	path := filepath.Join(h.dir, name)
	require.NoError(h.t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// certificate makes a certificate for the loopback interface that is its own authority.
func (h *host) certificate() (cert, key string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(h.t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "codeserver"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	require.NoError(h.t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(h.t, err)
	return h.file("tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		h.file("tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

// token makes a token and the line for the server's file.
func (h *host) token(name string) (token, line string) {
	out, err := exec.Command(filepath.Join(bin, "codeserver"), "token", name).CombinedOutput()
	require.NoError(h.t, err, "%s", out)
	m := regexp.MustCompile(`token: (\S+)\nline: +(\S+ \S+)\n`).FindStringSubmatch(string(out))
	require.NotNil(h.t, m, "%s", out)
	return m[1], m[2]
}

// TestTrust serves the control API to a network, with TLS, tokens and a key that deploys must be signed with.
func TestTrust(t *testing.T) {
	h := newHost(t, webProject("one"))
	cert, key := h.certificate()
	ci, ciLine := h.token("ci")
	viewer, viewerLine := h.token("viewer")
	other, otherLine := h.token("other")
	config := h.file("config.toml", `
tls-cert = "`+cert+`"
tls-key = "`+key+`"
tokens = "`+h.file("tokens", strings.Join([]string{ciLine, viewerLine, otherLine}, "\n"))+`"
[[grant]]
locations = ["web*"]
read = ["token:viewer"]
deploy = ["token:ci"]
[[grant]]
locations = ["shop"]
deploy = ["token:other"]
`)
	for _, name := range []string{"signer", "stranger"} {
		h.run("key", "generate", "--out", filepath.Join(h.dir, name))
	}
	signer, stranger := filepath.Join(h.dir, "signer"), filepath.Join(h.dir, "stranger")
	st, err := os.Stat(signer)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	r, err := h.try("key", "generate", "--out", signer)
	require.Error(t, err)
	require.Contains(t, r.stderr, "is there already")

	address := h.serveTrusting(config, signer+".pub")
	t.Setenv("PEXPRESS_CODESERVER_CA", cert)
	fails := func(token, want string, args ...string) {
		t.Helper()
		t.Setenv("PEXPRESS_CODESERVER_TOKEN", token)
		r, err := h.try(append([]string{args[0], "--to", address}, args[1:]...)...)
		require.Error(t, err)
		require.Equal(t, 6, r.code, r.stderr)
		require.Contains(t, r.stderr, want)
	}
	fails("", "set PEXPRESS_CODESERVER_TOKEN", "deploy", "--sign-key", signer)
	fails("wrong", "no one knows the token", "deploy", "--sign-key", signer)
	fails(viewer, `token:viewer has no right to deploy the location "web"`, "deploy", "--sign-key", signer)
	fails(other, `token:other has no right to deploy the location "web"`, "deploy", "--sign-key", signer)
	fails(ci, "pass --sign-key FILE", "deploy")
	fails(ci, "no key that this codeserver trusts", "deploy", "--sign-key", stranger)

	plain := strings.TrimPrefix(address, "grpcs://")
	fails(ci, "write grpcs://", "status", "--to", plain)
	t.Setenv("PEXPRESS_CODESERVER_CA", "")
	fails(ci, "in PEXPRESS_CODESERVER_CA", "status")
	t.Setenv("PEXPRESS_CODESERVER_CA", cert)

	t.Setenv("PEXPRESS_CODESERVER_TOKEN", ci)
	t.Setenv("PEXPRESS_SIGN_KEY", signer)
	d := find(h.events("deploy", "--to", address), "deployed", "", "")
	require.Equal(t, "one", h.get(d["address"].(string), "/"))
	h.write("web/word.py", "WORD = \"two\"\n")
	h.run("deploy", "--to", address)
	require.Equal(t, "two", h.get(d["address"].(string), "/"))
	fails(ci, "no right to rollback", "rollback", "web")
	fails(ci, "no right to remove", "remove", "web")
	fails(other, "no right to read", "logs", "web")
	fails(other, "no right to read", "status", "--watch", "web")

	t.Setenv("PEXPRESS_CODESERVER_TOKEN", viewer)
	require.NotNil(t, find(h.events("status", "--to", address), "location", "name", "web"))
	t.Setenv("PEXPRESS_CODESERVER_TOKEN", other)
	require.Nil(t, find(h.events("status", "--to", address), "location", "name", "web"), "what one may not read is not shown")
	r, err = h.try("status", "--to", "192.0.2.1:9")
	require.Error(t, err)
	require.Contains(t, r.stderr, "in the clear: use grpcs://192.0.2.1:9")
}

// serveTrusting starts the codeserver on a port of the loopback interface, and returns its address.
func (h *host) serveTrusting(config, trusted string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(h.t, err)
	address := l.Addr().String()
	require.NoError(h.t, l.Close())
	h.log, err = os.Create(filepath.Join(h.dir, "codeserver.log"))
	require.NoError(h.t, err)
	h.server = exec.Command(filepath.Join(bin, "codeserver"), append([]string{
		"serve", "--state", filepath.Join(h.dir, "state"),
		"--cache", h.cache(), "--listen", address, "--config", config, "--trusted-key", trusted,
	}, h.serve...)...)
	h.server.Stdout, h.server.Stderr = h.log, h.log
	require.NoError(h.t, h.server.Start())
	h.t.Cleanup(h.stop)
	require.Eventually(h.t, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 20*time.Second, 20*time.Millisecond, "the codeserver does not listen: see %s", h.log.Name())
	return "grpcs://" + address
}

// TestTrustRefuses starts codeservers whose configuration gives away more than it says.
func TestTrustRefuses(t *testing.T) {
	h := newHost(t, nil)
	config := h.file("config.toml", "tokens = \""+h.file("tokens", "")+"\"\n[[grant]]\nlocations = [\"*\"]\ndeploy = [\"token:ci\"]\n")
	for want, args := range map[string][]string{
		"add tls-cert and tls-key":     {"--listen", "0.0.0.0:0", "--config", config},
		"whose file mode says who may": {"--listen", h.socket(), "--config", config},
		"nobody may do anything":       {"--listen", "127.0.0.1:0", "--config", h.file("nobody.toml", `tokens = "x"`)},
		"not a sha256":                 {"--listen", "127.0.0.1:0", "--config", h.file("bad.toml", "tokens = \""+h.file("plain", "ci secret")+"\"\n[[grant]]\nlocations = [\"*\"]\nread = [\"token:ci\"]\n")},
		"no such file":                 {"--listen", "127.0.0.1:0", "--trusted-key", filepath.Join(h.dir, "none.pub")},
		"no PUBLIC KEY in PEM form":    {"--listen", "127.0.0.1:0", "--trusted-key", h.file("empty.pub", "")},
	} {
		out := serveFails(t, append([]string{"--state", filepath.Join(h.dir, "state"), "--cache", h.cache()}, args...)...)
		require.Contains(t, out, want)
		require.NotContains(t, out, "secret")
	}
}
