package fetch

import (
	"context"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/blake2b"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/plugin/lock"
)

// complete returns the digest of a wheel whose lock entry lacks the size or the sha256: remembered, or found out by
// fetching it.
func (f *Fetcher) complete(ctx context.Context, w lock.Wheel) (digest.Digest, error) {
	algorithm, want, err := strongest(w)
	if err != nil {
		return digest.Digest{}, err
	}
	known := filepath.Join(f.opts.StateDir, "wheels", algorithm+"-"+want)
	if b, err := durable.ReadFile(known); err == nil {
		var d digest.Digest
		if d.UnmarshalText(b) == nil && (w.SHA256 == "" || d.Hash() == w.SHA256) {
			return d, nil
		}
	}
	d, err := f.spool(ctx, w, algorithm, want)
	if err != nil {
		return d, err
	}
	return d, remember(known, d)
}

func remember(path string, d digest.Digest) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, []byte(d.String()), 0o600)
}

// maxWheel bounds a file whose size the lock does not say: no hash tells before its end that it is not the one.
const maxWheel = 8 << 30

// spool fetches a file of unknown digest to disk, checks the hash that is known, and stores it in the CAS.
func (f *Fetcher) spool(ctx context.Context, w lock.Wheel, algorithm, want string) (digest.Digest, error) {
	s, err := f.open(ctx, w, 0)
	if err != nil {
		return digest.Digest{}, err
	}
	defer s.Close()
	if err := os.MkdirAll(f.opts.StateDir, 0o700); err != nil {
		return digest.Digest{}, err
	}
	t, err := os.CreateTemp(f.opts.StateDir, ".fetch*")
	if err != nil {
		return digest.Digest{}, err
	}
	defer os.Remove(t.Name())
	defer t.Close()
	h, ours := algorithms[algorithm](), digest.NewHasher()
	limit := int64(maxWheel)
	if w.Size > 0 {
		limit = w.Size
	}
	r := io.LimitReader(s, limit+1) // one byte more shows that it is too long
	if _, err := io.Copy(io.MultiWriter(t, h, ours), r); err != nil {
		return digest.Digest{}, fmt.Errorf("fetch %s: %w", w.Filename, err)
	}
	d := ours.Digest()
	if d.Size() > limit && w.Size == 0 {
		return d, fmt.Errorf("%w: %s is larger than %d bytes", ErrRefused, w.Filename, limit)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want || w.Size > 0 && w.Size != d.Size() {
		// What it is is not told: a lock may name any file of this machine.
		return d, fmt.Errorf("%w: %s is not what the lock says (%s %s): the lock is wrong, or the file was changed: %w",
			ErrRefused, w.Filename, algorithm, want, digest.ErrMismatch)
	}
	if _, err := t.Seek(0, io.SeekStart); err != nil {
		return d, err
	}
	return d, f.cas.Put(ctx, d, t)
}

// algorithms are the hashes that a lock may use, by the names of Python's hashlib. md5 and sha1 are
// too weak to rely on.
var algorithms = map[string]func() hash.Hash{
	"sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New, "sha224": sha256.New224,
	"sha3_256": func() hash.Hash { return sha3.New256() }, "sha3_384": func() hash.Hash { return sha3.New384() },
	"sha3_512": func() hash.Hash { return sha3.New512() },
	"blake2b": func() hash.Hash {
		h, _ := blake2b.New512(nil)
		return h
	},
}

// preferred lists the algorithms in the order in which they are taken.
var preferred = []string{"sha256", "sha512", "sha384", "blake2b", "sha3_512", "sha3_384", "sha3_256", "sha224"}

// strongest returns the hash of a wheel that is checked.
func strongest(w lock.Wheel) (algorithm, value string, _ error) {
	for _, a := range preferred {
		if v, ok := w.Hashes[a]; ok {
			v = strings.ToLower(v)
			if b, err := hex.DecodeString(v); err != nil || len(b) != algorithms[a]().Size() {
				return "", "", fmt.Errorf("%w: %s: the lock's %s %.80q is not one", ErrRefused, w.Filename, a, v)
			}
			return a, v, nil
		}
	}
	return "", "", fmt.Errorf("%w: %s has only the hashes %q in the lock; one of %q is needed", ErrRefused, w.Filename,
		slices.Sorted(maps.Keys(w.Hashes)), preferred)
}
