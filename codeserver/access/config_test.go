package access_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/access"
)

// TestConfigRefused reads files that make no sense, or give away more than they say.
func TestConfigRefused(t *testing.T) {
	for want, config := range map[string]string{
		`line 1: there is no key "token"`:       `token = "x"`,
		`there is no key "grant.writes"`:        "[[grant]]\nwrites = [\"x\"]",
		"line 1, column":                        "tls-cert = ",
		"tls-cert and tls-key go together":      `tls-cert = "x"`,
		"tls-client-ca needs tls-cert":          `tls-client-ca = "x"`,
		"nothing tells who a caller is":         `[[grant]]` + "\nlocations = [\"*\"]\nread = [\"token:a\"]",
		"nobody may do anything":                `tokens = "x"`,
		"grant 1: it names no locations":        `tokens = "x"` + "\n[[grant]]\nread = [\"token:a\"]",
		`grant 1: deploy: nobody is called "a"`: `tokens = "x"` + "\n[[grant]]\nlocations = [\"*\"]\ndeploy = [\"a\"]",
	} {
		_, err := access.Load(write(t, "config.toml", config))
		require.ErrorContains(t, err, want)
	}
	_, err := access.Load("/nowhere/config.toml")
	require.ErrorIs(t, err, os.ErrNotExist)
	plain := &access.Config{}
	for address, want := range map[string]string{
		"unix:///s": "whose file mode says who may use it", "unix:/s": "whose file mode says who may use it", "0.0.0.0:1": "in the clear", ":1": "in the clear", "example:1": "in the clear",
		"nowhere": "use host:port",
	} {
		require.ErrorContains(t, plain.CheckAddress(address), want)
	}
	for _, address := range []string{"127.0.0.1:1", "localhost:1", "[::1]:1"} {
		require.NoError(t, plain.CheckAddress(address))
	}
	require.NoError(t, (&access.Config{Cert: "c"}).CheckAddress("0.0.0.0:1"))
}

// TestDocs reads the configuration that docs/trust.md shows.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/trust.md")
	require.NoError(t, err)
	_, config, _ := strings.Cut(string(b), "```toml\n")
	config, _, ok := strings.Cut(config, "```")
	require.True(t, ok)
	c, err := access.Load(write(t, "config.toml", config))
	require.NoError(t, err)
	require.NoError(t, c.CheckAddress("0.0.0.0:9091"))
	p, err := c.Policy()
	require.NoError(t, err)
	require.True(t, p.May("oidc:org/app", access.Deploy, "web-pr-1"))
	require.False(t, p.May("oidc:org/app", access.Deploy, "shop"))
	require.True(t, p.May("cert:oncall-a", access.Rollback, "shop"))
}
