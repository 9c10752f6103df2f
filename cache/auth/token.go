package auth

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

// Tokens verifies static tokens, of which a file holds the hashes. The file has a line for each: a name, a space, and
// the token's sha256 in hexadecimal digits; lines that begin with # are comments. Several lines may have one name, so
// that a token can be replaced while the old one still works.
type Tokens struct {
	path string
	held atomic.Pointer[[]token]
}

type token struct {
	name string
	sum  [sha256.Size]byte
}

// OpenTokens reads a file of tokens.
func OpenTokens(path string) (*Tokens, error) {
	t := &Tokens{path: path}
	_, err := t.Reload()
	return t, err
}

// Reload reads the file again, and reports whether it had changed. If it cannot be read, or a line of it makes no sense,
// what was read before still holds.
func (t *Tokens) Reload() (changed bool, err error) {
	b, err := os.ReadFile(t.path)
	if err != nil {
		return false, fmt.Errorf("tokens: %w", err)
	}
	held, err := parseTokens(b)
	if err != nil {
		return false, fmt.Errorf("tokens: %s: %w", t.path, err)
	}
	before := t.held.Swap(&held)
	return before == nil || !slices.Equal(*before, held), nil
}

func parseTokens(b []byte) ([]token, error) {
	var held []token
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("line %d has %d words: write NAME SHA256, as 'pexcache token NAME' prints it", n, len(fields))
		}
		sum, err := hex.DecodeString(fields[1])
		if err != nil || len(sum) != sha256.Size {
			// The word is not shown: it may be the token itself.
			return nil, fmt.Errorf("line %d: the second word is not a sha256 in 64 hexadecimal digits", n)
		}
		if _, err := checked("token:" + fields[0]); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		held = append(held, token{name: "token:" + fields[0], sum: [sha256.Size]byte(sum)})
	}
	return held, lines.Err()
}

// Verify implements Verifier. It takes the same time wherever in the list the token stands.
func (t *Tokens) Verify(_ context.Context, shown string) (string, error) {
	sum := sha256.Sum256([]byte(shown))
	name := ""
	for _, held := range *t.held.Load() {
		if subtle.ConstantTimeCompare(sum[:], held.sum[:]) == 1 {
			name = held.name
		}
	}
	if name == "" {
		return "", errNotMine
	}
	return name, nil
}

// NewToken returns a token that nobody can guess, and the line for the file of tokens that makes it name's.
func NewToken(name string) (token, line string, err error) {
	if strings.ContainsAny(name, " \t\r\n#") || name == "" {
		return "", "", fmt.Errorf("a token's name is one word without #, not %q", name)
	}
	if _, err := checked("token:" + name); err != nil {
		return "", "", err
	}
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	token = "pexcache_" + base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(token))
	return token, name + " " + hex.EncodeToString(sum[:]), nil
}
