package project

import (
	"path"
	"strings"
)

// looksSecret reports whether a file of this name commonly holds credentials, and so should not be shipped unless it
// is listed. Templates without values and public halves of keys are not meant. It is asked about every file, so it
// compares strings and matches no patterns.
func looksSecret(name string) bool {
	name = strings.ToLower(name)
	ext := path.Ext(name)
	switch ext {
	case ".py", ".example", ".sample", ".template", ".dist", ".pub":
		return false
	case ".env", ".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ppk", ".tfvars", ".tfstate":
		return true
	}
	switch name {
	case ".env", ".envrc", ".netrc", "_netrc", ".pypirc", ".pgpass", ".htpasswd", ".git-credentials", ".dockercfg",
		".npmrc", "credentials.json", "secrets.toml", "secrets.yaml", "secrets.yml", "secrets.json", "secrets.ini":
		return true
	}
	for _, prefix := range []string{".env.", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	if ext == ".json" {
		for _, prefix := range []string{"client_secret", "service-account", "service_account"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
	}
	return false
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, name); ok && err == nil {
			return true
		}
	}
	return false
}
