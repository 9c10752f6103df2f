// Package memory is a cache that lives in the memory of its process. It is the project's fake: a real and complete
// implementation that tests use in place of mocks.
package memory

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Store holds blobs and ActionResults until it is dropped; it evicts nothing. It implements cache.CAS and
// cache.ActionCache.
type Store struct {
	mu      sync.RWMutex
	blobs   map[digest.Digest][]byte
	results map[digest.Digest]*repb.ActionResult
	sizes   map[digest.Digest]int64 // of blobs by their digests without size
}

var (
	_ cache.CAS         = (*Store)(nil)
	_ cache.ActionCache = (*Store)(nil)
	_ cache.HashFinder  = (*Store)(nil)
)

// New returns an empty Store.
func New() *Store {
	return &Store{
		blobs:   make(map[digest.Digest][]byte),
		results: make(map[digest.Digest]*repb.ActionResult),
		sizes:   make(map[digest.Digest]int64),
	}
}

// Get implements cache.CAS.
func (s *Store) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, ok := s.blob(d)
	if !ok {
		return nil, cache.NotFound("blob", d)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Put implements cache.CAS. The bytes are held outside the lock until they are known to be right.
func (s *Store) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, ok := s.blob(d); ok {
		return nil
	}
	if d.IsZero() {
		return fmt.Errorf("put blob: %w: no digest given", digest.ErrInvalid)
	}
	b, err := io.ReadAll(digest.NewReader(io.NopCloser(r), d))
	if err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[d] = b
	s.sizes[d.Function().FromSum(d.Sum(), 0)] = d.Size()
	return nil
}

// FindHash implements cache.HashFinder.
func (s *Store) FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return digest.Digest{}, err
	}
	key := fn.FromSum(sum, 0)
	s.mu.RLock()
	defer s.mu.RUnlock()
	size, ok := s.sizes[key]
	if !ok && !key.IsEmpty() {
		return digest.Digest{}, cache.NotFound("blob", key)
	}
	return fn.FromSum(sum, size), nil
}

// FindMissing implements cache.CAS.
func (s *Store) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var missing []digest.Digest
	asked := make(map[digest.Digest]bool, len(ds))
	for _, d := range ds {
		if _, ok := s.blob(d); !ok && !asked[d] {
			missing = append(missing, d)
		}
		asked[d] = true
	}
	return missing, nil
}

func (s *Store) blob(d digest.Digest) ([]byte, bool) {
	if d.IsEmpty() {
		return nil, true
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.blobs[d]
	return b, ok
}

// GetActionResult implements cache.ActionCache. The result is the caller's own copy.
func (s *Store) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.results[action]
	if !ok {
		return nil, cache.NotFound("result of action", action)
	}
	return proto.CloneOf(r), nil
}

// UpdateActionResult implements cache.ActionCache. It keeps a copy.
func (s *Store) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[action] = proto.CloneOf(result)
	return nil
}
