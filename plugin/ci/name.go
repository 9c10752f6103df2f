package ci

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// A codeserver's names have 63 characters at most. What a branch adds is the same for all its locations, so that they are
// found again when it is deleted, whatever the project's locations are called by then.
const (
	maxName = 63
	maxSlug = 24
	hashLen = 10 // 40 bits
)

// BranchSuffix is how the names of a branch's deployments end: a dot, what of the branch's name a location may be called,
// and a hash of the repository and the whole branch, which keeps feature/a and feature-a apart.
func BranchSuffix(repository, branch string) string {
	slug := slugOf(branch)
	if slug != "" {
		slug += "-"
	}
	return "." + slug + hash(repository+"\x00"+branch)
}

// BranchName is what a location is called that is deployed from a branch.
func BranchName(location, repository, branch string) string {
	suffix := BranchSuffix(repository, branch)
	if room := maxName - len(suffix); len(location) > room {
		location = strings.TrimRight(location[:room-hashLen-1], "-._") + "-" + hash(location)
	}
	return location + suffix
}

func slugOf(branch string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(branch) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == maxSlug {
			break
		}
	}
	return strings.Trim(b.String(), "-")
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:hashLen]
}
