package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// FindHash implements cache.HashFinder. The size is part of a blob's name, so it costs reading one of 256 directories:
// enough for a cache of one machine that is seldom asked in this way.
func (s *Store) FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error) {
	want := fn.FromSum(sum, 0)
	if want.IsEmpty() {
		return want, ctx.Err()
	}
	dir, err := os.Open(name{blobs, want}.dir(s))
	if errors.Is(err, fs.ErrNotExist) {
		return digest.Digest{}, cache.NotFound("blob", want)
	}
	if err != nil {
		return digest.Digest{}, fmt.Errorf("find blob %s: %w", want.Hash(), err)
	}
	defer dir.Close()
	for {
		if err := ctx.Err(); err != nil {
			return digest.Digest{}, err
		}
		files, err := dir.Readdirnames(1000)
		for _, file := range files {
			n, ok := parseName(blobs, file)
			if !ok || n.digest.Function() != fn || n.digest.Sum() != sum {
				continue
			}
			if state, err := s.look(n); err != nil || state.present {
				return n.digest, err
			}
		}
		if errors.Is(err, io.EOF) {
			return digest.Digest{}, cache.NotFound("blob", want)
		}
		if err != nil {
			return digest.Digest{}, fmt.Errorf("find blob %s: %w", want.Hash(), err)
		}
	}
}
