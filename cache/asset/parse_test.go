package asset

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	"github.com/stretchr/testify/require"
)

func TestAllowed(t *testing.T) {
	a, err := ParseAllowed([]string{"https://Example.org", "http://mirror.example:8080/", "https://*.example.net", "https://[2001:db8::1]", "10.0.0.0/8"})
	require.NoError(t, err)
	for uri, want := range map[string]bool{
		"https://example.org/a": true, "https://EXAMPLE.org:443/a": true, "https://example.org./a": true, "http://mirror.example:8080": true,
		"https://a.example.net": true, "https://a.b.example.net/x?y": true, "https://[2001:db8::1]/": true,
		"http://example.org/a": false, "https://example.org:8443/": false, "http://mirror.example/": false, "https://example.net": false,
		"https://badexample.net": false, "https://example.org.evil.example": false, "https://user@example.org": false, "https:example.org": false,
		"//example.org": false, "https://": false, "ftp://example.org": false,
	} {
		u, err := url.Parse(uri)
		require.NoError(t, err)
		require.Equal(t, want, a.check(u) == nil, uri)
	}
	for _, bad := range []string{"example.org", "ftp://x", "https://", "https://a/b", "https://a?b", "https://*", "https://a.*.b", "https://x*", "10.0.0.0", "https://u:p@x", "://"} {
		_, err := ParseAllowed([]string{bad})
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "u:p@")
	}
}

func TestPublic(t *testing.T) {
	for ip, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1": true, "::ffff:8.8.8.8": true,
		"127.0.0.1": false, "::1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "fe80::1": false,
		"fe80::1%eth0": false, "fd00::1": false, "0.0.0.0": false, "::": false, "100.64.0.1": false, "224.0.0.1": false, "255.255.255.255": false,
		"::ffff:127.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "ff02::1": false, "198.18.0.1": false,
	} {
		require.Equal(t, want, public(netip.MustParseAddr(ip)), ip)
	}
}

// FuzzQualifiers: whatever a client sends, nothing panics and errors are short.
func FuzzQualifiers(f *testing.F) {
	f.Add("https://a/b", "checksum.sri", "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
	f.Add("https://a/b", "bazel.auth_headers", `{"https://a/b": {"X": ["y"]}}`)
	f.Add("x", "http_header_url:0:X", "y")
	f.Fuzz(func(t *testing.T, uri, name, value string) {
		q, err := parseQualifiers([]string{uri}, []*assetpb.Qualifier{{Name: name, Value: value}})
		if err != nil {
			require.Less(t, len(err.Error()), 2000)
			return
		}
		for h := range q.headers[0] {
			require.NotContains(t, kept, h)
		}
		_ = q.supported(blob)
	})
}

// FuzzSRI: what is taken has checksums of the right lengths.
func FuzzSRI(f *testing.F) {
	f.Add("sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU= sha512-x?y")
	f.Fuzz(func(t *testing.T, s string) {
		sums, err := parseSRI(s)
		if err != nil {
			return
		}
		require.NotEmpty(t, sums)
		for _, c := range sums {
			require.Len(t, c.sum, algorithms[c.algorithm]().Size())
		}
	})
}

// FuzzAllowed: no URL is allowed whose host is not listed.
func FuzzAllowed(f *testing.F) {
	a, err := ParseAllowed([]string{"https://*.example.net", "https://example.org"})
	require.NoError(f, err)
	f.Add("https://a.example.net/x")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil || a.check(u) != nil {
			return
		}
		host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		require.True(t, host == "example.org" || strings.HasSuffix(host, ".example.net"), s)
	})
}
