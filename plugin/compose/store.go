package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
)

// store is the CAS of one composition: what is made is held in memory, files that are given stay where they are. A wheel
// may be larger than the memory.
type store struct {
	*memory.Store
	paths  map[digest.Digest]string
	hasher *merkle.Hasher
}

func newStore() *store {
	hasher, _ := merkle.NewHasher("") // it fails on an index only, and has none
	return &store{Store: memory.New(), paths: map[digest.Digest]string{}, hasher: hasher}
}

// files takes in files of the disk.
func (s *store) files(ctx context.Context, paths []string) ([]digest.Digest, error) {
	digests, err := s.hasher.Files(ctx, paths)
	if err != nil {
		return nil, err
	}
	for i, d := range digests {
		s.paths[d] = paths[i]
	}
	return digests, nil
}

// Get implements cache.CAS. A file that is another than it was when it was taken in is an error.
func (s *store) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	r, err := s.Store.Get(ctx, d)
	path, ok := s.paths[d]
	if !ok || !errors.Is(err, cache.ErrNotFound) {
		return r, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return digest.NewReader(changed{f, path}, d), nil
}

// changed names the file in the error for bytes that are not those it had before.
type changed struct {
	*os.File
	path string
}

func (c changed) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read %s: %w", c.path, err)
	}
	return n, err
}

// FindMissing implements cache.CAS.
func (s *store) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	missing, err := s.Store.FindMissing(ctx, ds)
	var absent []digest.Digest
	for _, d := range missing {
		if _, ok := s.paths[d]; !ok {
			absent = append(absent, d)
		}
	}
	return absent, err
}
