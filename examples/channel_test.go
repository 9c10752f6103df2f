package examples

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/codeserver/channel"
)

// keyPair writes a key's halves as files.
func keyPair(t *testing.T) (private, public string) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	open, err := x509.MarshalPKIXPublicKey(pub)
	require.NoError(t, err)
	dir := t.TempDir()
	private, public = filepath.Join(dir, "key"), filepath.Join(dir, "key.pub")
	require.NoError(t, os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	require.NoError(t, os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: open}), 0o644))
	return private, public
}

// follows waits until the location is as the channel says, or not, for a reason.
func (h *host) follows(location, why string) {
	h.t.Helper()
	last := ""
	require.Eventually(h.t, func() bool {
		l := find(h.events("status"), "location", "name", location)
		if l == nil {
			return false
		}
		last, _ = l["channel_error"].(string)
		return l["channel"] == "prod" && (why == "" && last == "" || why != "" && strings.Contains(last, why))
	}, time.Minute, 20*time.Millisecond, "%s: %q is not what the channel says of it: %s", location, why, &last)
}

// TestChannel has two codeservers follow one channel: both serve what is published, the one that was down catches up, and
// what nobody with the key has published is refused.
func TestChannel(t *testing.T) {
	private, public := keyPair(t)
	h := newHost(t, webProject("one"))
	h.serve = []string{"--follow", "prod=web", "--channel-key", public, "--follow-every", "50ms", "--trusted-key", public}
	other := &host{t: t, dir: t.TempDir(), project: h.project, remote: h.cache(), serve: h.serve}
	h.start()
	other.start()
	h.follows("web", "not published")

	published := find(h.events("channel", "publish", "prod", "--sign-key", private), "published", "", "")
	version := published["locations"].(map[string]any)["web"].(string)
	for _, m := range []*host{h, other} {
		m.follows("web", "")
		m.await(m.address("web"), "one")
		l := find(m.events("status"), "location", "name", "web")
		require.Equal(t, version, l["current"])
	}
	require.Contains(t, h.run("status").stdout, "follows channel prod")
	require.Contains(t, h.run("channel", "show", "prod", "--channel-key", public).stdout, "web@"+version[:12])
	require.Contains(t, h.run("channel", "show", "prod").stdout, "signature not checked")

	// One is down, and catches up.
	address := other.address("web")
	other.stop()
	first := h.envelope()
	h.write("web/word.py", "WORD = \"two\"\n")
	h.run("channel", "publish", "prod", "--sign-key", private)
	h.await(h.address("web"), "two")
	other.start()
	other.await(address, "two")

	// A version that cannot start: the one before serves on, on both.
	h.write("web/word.py", "raise RuntimeError(\"no good\")\n")
	h.run("channel", "publish", "prod", "--sign-key", private)
	for _, m := range []*host{h, other} {
		m.follows("web", "RuntimeError: no good")
		require.Equal(t, "two", m.get(m.address("web"), "/"))
	}
	h.write("web/word.py", "WORD = \"three\"\n")
	h.run("channel", "publish", "prod", "--sign-key", private)
	h.await(h.address("web"), "three")
	other.await(address, "three")

	// Somebody who can write to the cache plays the first pointer back, and puts a forged one there.
	h.replace(first)
	h.follows("web", "which was seen here")
	_, forger, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	p, err := channel.Read(first)
	require.NoError(t, err)
	p.Sequence *= 2
	forged, err := p.Sign(t.Context(), forger)
	require.NoError(t, err)
	h.replace(forged)
	for _, m := range []*host{h, other} {
		m.follows("web", "no key that is trusted for channels has signed it")
		require.Equal(t, "three", m.get(m.address("web"), "/"))
	}
	r, err := h.try("channel", "publish", "prod", "--sign-key", private)
	require.Error(t, err)
	require.Equal(t, 3, r.code, r.stderr)
	require.Contains(t, r.stderr, "--only")
	r, err = h.try("channel", "show", "prod", "--channel-key", public)
	require.Error(t, err)
	require.Equal(t, 3, r.code, r.stderr)
	h.write("web/word.py", "WORD = \"four\"\n")
	h.run("channel", "publish", "prod", "web", "--only", "--sign-key", private)
	h.await(h.address("web"), "four")
	other.await(address, "four")
}

// envelope returns what the cache has for the channel.
func (h *host) envelope() []byte {
	s, err := disk.Open(h.cache(), disk.Options{})
	require.NoError(h.t, err)
	defer s.Close()
	b, err := channel.Fetch(h.t.Context(), s, s, "prod")
	require.NoError(h.t, err)
	return b
}

// replace puts an envelope into the channel's place.
func (h *host) replace(envelope []byte) {
	s, err := disk.Open(h.cache(), disk.Options{})
	require.NoError(h.t, err)
	defer s.Close()
	p, err := channel.Read(envelope)
	require.NoError(h.t, err)
	require.NoError(h.t, channel.Publish(h.t.Context(), s, s, p, envelope))
}

// TestChannelRefuses starts and publishes what makes no sense.
func TestChannelRefuses(t *testing.T) {
	_, public := keyPair(t)
	dir := t.TempDir()
	serve := []string{"--state", filepath.Join(dir, "state"), "--cache", filepath.Join(dir, "cache"), "--listen", "127.0.0.1:0"}
	for want, args := range map[string][]string{
		"--follow needs --channel-key": {"--follow", "prod"},
		"no name for a channel":        {"--follow", "../prod", "--channel-key", public},
		"no name for a location":       {"--follow", "prod=web,", "--channel-key", public},
		"--follow-every 0s":            {"--follow-every", "0"},
	} {
		require.Contains(t, serveMisused(t, append(serve, args...)...), want)
	}
	for want, args := range map[string][]string{
		"it can follow one":              {"--follow", "prod=web", "--follow", "beta=web", "--channel-key", public},
		"name the locations of each":     {"--follow", "prod", "--follow", "beta=web", "--channel-key", public},
		"channel prod is followed twice": {"--follow", "prod=web", "--follow", "prod=api", "--channel-key", public},
		"--channel-key: trusted key":     {"--follow", "prod", "--channel-key", filepath.Join(dir, "none")},
	} {
		require.Contains(t, serveFails(t, append(serve, args...)...), want)
	}
	h := newHost(t, webProject("one"))
	for want, args := range map[string][]string{
		"--sign-key":            {"publish", "prod"},
		"no name for a channel": {"publish", "a/b", "--sign-key", public},
		"no PRIVATE KEY":        {"publish", "prod", "--sign-key", public},
		"not published":         {"show", "prod"},
	} {
		r, err := h.try(append([]string{"channel"}, args...)...)
		require.Error(t, err)
		require.Contains(t, r.stderr, want)
	}
}
