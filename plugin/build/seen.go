package build

import (
	"context"
	"io"
	"sync"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Seen is a CAS that remembers which blobs are there, for one build: what was found or stored is not looked for again. Each
// step of a build asks for all files of a project, and the cache is the same one a few milliseconds later. When a blob
// cannot be read all is forgotten, since somebody empties the cache.
type Seen struct {
	cache.CAS
	mu    sync.Mutex
	there map[digest.Digest]bool
}

// Remember returns a Seen over c.
func Remember(c cache.CAS) *Seen { return &Seen{CAS: c, there: map[digest.Digest]bool{}} }

// Get implements cache.CAS.
func (s *Seen) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	rc, err := s.CAS.Get(ctx, d)
	if err != nil {
		s.Forget()
		return nil, err
	}
	return &seenReader{rc, s}, nil
}

// seenReader notices a copy that turns out to be corrupt.
type seenReader struct {
	io.ReadCloser
	seen *Seen
}

func (r *seenReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		r.seen.Forget()
	}
	return n, err
}

// FindMissing implements cache.CAS.
func (s *Seen) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	ask := make([]digest.Digest, 0, len(ds))
	s.mu.Lock()
	for _, d := range ds {
		if !s.there[d] {
			ask = append(ask, d)
		}
	}
	s.mu.Unlock()
	if len(ask) == 0 && len(ds) > 0 {
		return nil, ctx.Err()
	}
	missing, err := s.CAS.FindMissing(ctx, ask)
	if err != nil {
		return nil, err
	}
	gone := make(map[digest.Digest]bool, len(missing))
	for _, d := range missing {
		gone[d] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.there) == 0 {
		s.there = make(map[digest.Digest]bool, len(ask))
	}
	for _, d := range ask {
		if !gone[d] {
			s.there[d] = true
		}
	}
	return missing, nil
}

// Put implements cache.CAS.
func (s *Seen) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	err := s.CAS.Put(ctx, d, r)
	if err == nil {
		s.mu.Lock()
		s.there[d] = true
		s.mu.Unlock()
	}
	return err
}

// PutMany implements cache.BatchPutter.
func (s *Seen) PutMany(ctx context.Context, blobs []cache.Blob) error {
	if err := cache.PutAll(ctx, s.CAS, blobs); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blobs {
		s.there[b.Digest] = true
	}
	return nil
}

// Forget has all be looked for again: a build begins.
func (s *Seen) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.there)
}
