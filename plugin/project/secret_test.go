package project

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLooksSecret(t *testing.T) {
	for _, name := range []string{
		".env", ".ENV", ".env.production", ".envrc", "server.pem", "tls.key", "id_rsa", "id_ed25519", "id_rsa.bak", ".netrc",
		".pypirc", "credentials.json", "client_secret_1.json", "service-account.json", "service_account_prod.json", "a.p12", "b.PFX",
		".git-credentials", ".pgpass", "prod.tfvars",
	} {
		require.True(t, looksSecret(name), name)
	}
	for _, name := range []string{
		".env.example", ".env.sample", "id_rsa.pub", "env", "environment.py", "key.py", "keys.json", "service-account.py",
		"id_rsa.py", "credentials.py", "pem", "service.json", "data.csv", "environment.yaml",
	} {
		require.False(t, looksSecret(name), name)
	}
}
