package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// maxWritten bounds what one build may write.
const maxWritten = 8 << 30

// kind is what a blob in scope is, and so which further blobs it brings into scope when it is read.
type kind int

const (
	file kind = iota
	actionMessage
	directoryMessage
)

// Scoped is a CAS that holds what one Action declares and what its builder writes; anything else is not found there,
// whether or not the CAS below has it.
type Scoped struct {
	base    cache.CAS
	mu      sync.Mutex
	inScope map[digest.Digest]kind
	left    int64 // how many bytes may still be written
}

// Scope returns a CAS for the builder of one Action. Blobs come into scope as the builder reads its way down: the
// Action, its Command and input root, then each Directory's entries, so that a large input root costs nothing until
// it is looked at.
func Scope(base cache.CAS, action digest.Digest) *Scoped {
	return &Scoped{base: base, inScope: map[digest.Digest]kind{action: actionMessage}, left: maxWritten}
}

// Has reports whether the blob has come into scope. Then it is an input or was written, and so in the CAS below.
func (s *Scoped) Has(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.inScope[d]
	return ok || d.IsEmpty()
}

// Get implements cache.CAS.
func (s *Scoped) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	s.mu.Lock()
	k, ok := s.inScope[d]
	s.mu.Unlock()
	if !ok && !d.IsEmpty() {
		return nil, cache.NotFound("blob, among those that the action declares,", d)
	}
	if k == file {
		return s.base.Get(ctx, d)
	}
	b, err := cache.ReadBlob(ctx, s.base, d, cache.MaxMessage)
	if err != nil {
		return nil, err
	}
	if err := s.open(d, k, b); err != nil {
		return nil, err
	}
	return digest.NewReader(io.NopCloser(bytes.NewReader(b)), d), nil
}

// open brings what a message names into scope.
func (s *Scoped) open(d digest.Digest, k kind, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k == actionMessage {
		var a repb.Action
		if err := proto.Unmarshal(b, &a); err != nil {
			return fmt.Errorf("blob %s is not an Action: %w", d, err)
		}
		command, err := digest.FromProto(a.GetCommandDigest())
		if err != nil {
			return err
		}
		root, err := digest.FromProto(a.GetInputRootDigest())
		if err != nil {
			return err
		}
		s.add(command, file)
		s.add(root, directoryMessage)
		return nil
	}
	dir, err := merkle.ParseDirectory(d, b)
	if err != nil {
		return err
	}
	for _, f := range dir.Files {
		s.add(f, file)
	}
	for _, c := range dir.Directories {
		s.add(c, directoryMessage)
	}
	return nil
}

// add brings a blob into scope. What is a Directory in one place and a file in another stays a Directory.
func (s *Scoped) add(d digest.Digest, k kind) { s.inScope[d] = max(s.inScope[d], k) }

// Put implements cache.CAS.
func (s *Scoped) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := s.take(d.Size()); err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	// The bytes are read even when the cache has the blob: who cannot show them does not learn that it is there.
	verified := digest.NewReader(io.NopCloser(r), d)
	if err := s.base.Put(ctx, d, verified); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, verified); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inScope[d] = max(s.inScope[d], file)
	return nil
}

// take reserves room for n bytes. It compares before it subtracts: a blob may claim any size.
func (s *Scoped) take(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.left {
		return status.Errorf(codes.ResourceExhausted, "a build may write %d bytes; this one has %d left", int64(maxWritten), s.left)
	}
	s.left -= n
	return nil
}

// PutMany implements cache.BatchPutter, so that a builder's many small outputs cost one sync. As in Put the bytes are
// hashed even when the cache has the blob.
func (s *Scoped) PutMany(ctx context.Context, blobs []cache.Blob) error {
	for _, b := range blobs {
		if b.Digest.IsZero() || b.Digest.Function().FromBytes(b.Data) != b.Digest {
			return fmt.Errorf("put blob %s: %w", b.Digest, digest.ErrMismatch)
		}
		if err := s.take(b.Digest.Size()); err != nil {
			return fmt.Errorf("put blob %s: %w", b.Digest, err)
		}
	}
	if err := cache.PutAll(ctx, s.base, blobs); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blobs {
		s.inScope[b.Digest] = max(s.inScope[b.Digest], file)
	}
	return nil
}

// FindMissing implements cache.CAS. The CAS below is asked for what is in scope only: a question keeps a blob from
// eviction there and takes the longer the further away it is, both of which would tell of others' blobs.
func (s *Scoped) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	var ask []digest.Digest
	for _, d := range ds {
		if s.Has(d) {
			ask = append(ask, d)
		}
	}
	missing, err := s.base.FindMissing(ctx, ask)
	if err != nil {
		return nil, err
	}
	there := make(map[digest.Digest]bool, len(ds)) // or answered already
	for _, d := range ask {
		there[d] = true
	}
	for _, d := range missing {
		delete(there, d)
	}
	var out []digest.Digest
	for _, d := range ds {
		if !there[d] && !d.IsEmpty() {
			out = append(out, d)
		}
		there[d] = true
	}
	return out, nil
}
