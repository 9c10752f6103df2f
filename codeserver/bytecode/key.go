package bytecode

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/pexpress/pexpress/cache/digest"
)

// Key is a secret that the hosts of a fleet share. What one of them signs with it the others believe.
type Key struct {
	secret []byte
	name   string // tells keys apart, and nothing about the secret
}

// A secret's length. 'openssl rand -hex 32' makes one of 64.
const (
	minSecret = 32
	maxSecret = 4 << 10
)

// ReadKey reads a key from a file that only the codeserver's user and root can read.
func ReadKey(path string) (*Key, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("bytecode key: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("bytecode key: %w", err)
	}
	switch uid := int(st.Sys().(*syscall.Stat_t).Uid); {
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("bytecode key: %s is no regular file", path)
	case uid != 0 && uid != os.Geteuid():
		return nil, fmt.Errorf("bytecode key: %s is the user %d's: it must be root's or the codeserver's", path, uid)
	case st.Mode().Perm()&0o027 != 0:
		return nil, fmt.Errorf("bytecode key: %s has the mode %04o: others can read or change it; chmod 600 %s", path, st.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("bytecode key: %w", err)
	}
	secret := strings.TrimSpace(string(b))
	if len(secret) < minSecret || len(b) > maxSecret {
		return nil, fmt.Errorf("bytecode key: %s must hold %d characters or more, and at most %d bytes: openssl rand -hex 32 > %s", path, minSecret, maxSecret, path)
	}
	return newKey([]byte(secret)), nil
}

func newKey(secret []byte) *Key {
	k := &Key{secret: secret}
	k.name = hex.EncodeToString(k.mac("name")[:8])
	return k
}

// sign returns the signature of an Action's output tree, for an ActionResult's standard output.
func (k *Key) sign(action, tree digest.Digest) []byte {
	return []byte("pexpress-bytecode hmac-sha256 " + hex.EncodeToString(k.mac("result\n"+action.String()+"\n"+tree.String())) + "\n")
}

func (k *Key) signed(signature []byte, action, tree digest.Digest) bool {
	return hmac.Equal(signature, k.sign(action, tree))
}

func (k *Key) mac(text string) []byte {
	h := hmac.New(sha256.New, k.secret)
	h.Write([]byte("pexpress bytecode v1 " + text))
	return h.Sum(nil)
}
