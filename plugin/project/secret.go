package project

import (
	"path"
	"strings"
)

// secretNames are the files that commonly hold credentials, as patterns for the lower-cased name.
var secretNames = []string{
	".env", ".env.*", ".envrc", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk",
	"id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
	".netrc", "_netrc", ".pypirc", ".pgpass", ".htpasswd", ".git-credentials", ".dockercfg", ".npmrc",
	"credentials.json", "client_secret*.json", "service-account*.json", "service_account*.json", "*.tfvars", "*.tfstate",
}

// publicNames are exceptions: templates without values, and public halves of keys.
var publicNames = []string{"*.example", "*.sample", "*.template", "*.dist", "*.pub"}

// looksSecret reports whether a file of this name should not be shipped unless it is listed.
func looksSecret(name string) bool {
	name = strings.ToLower(name)
	return matchesAny(secretNames, name) && !matchesAny(publicNames, name)
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, name); ok && err == nil {
			return true
		}
	}
	return false
}
