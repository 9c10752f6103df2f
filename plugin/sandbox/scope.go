package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/server"
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

// scoped is a CAS that holds what one Action declares and what its builder writes; anything else is not found there,
// whether or not the CAS below has it.
type scoped struct {
	base    cache.CAS
	mu      sync.Mutex
	inScope map[digest.Digest]kind
	written int64
}

// Scope returns a CAS for the builder of one Action. Blobs come into scope as the builder reads its way down: the
// Action, its Command and input root, then each Directory's entries, so that a large input root costs nothing until
// it is looked at.
func Scope(base cache.CAS, action digest.Digest) cache.CAS {
	return &scoped{base: base, inScope: map[digest.Digest]kind{action: actionMessage}}
}

// Get implements cache.CAS.
func (s *scoped) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	s.mu.Lock()
	k, ok := s.inScope[d]
	s.mu.Unlock()
	if !ok && d != digest.Empty {
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
func (s *scoped) open(d digest.Digest, k kind, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k == actionMessage {
		var a repb.Action
		if err := proto.Unmarshal(b, &a); err != nil {
			return fmt.Errorf("blob %s is not an Action: %w", d, err)
		}
		return errors.Join(s.add(a.GetCommandDigest(), file), s.add(a.GetInputRootDigest(), directoryMessage))
	}
	var dir repb.Directory
	if err := proto.Unmarshal(b, &dir); err != nil {
		return fmt.Errorf("blob %s is not a Directory: %w", d, err)
	}
	for _, f := range dir.GetFiles() {
		if err := s.add(f.GetDigest(), file); err != nil {
			return err
		}
	}
	for _, c := range dir.GetDirectories() {
		if err := s.add(c.GetDigest(), directoryMessage); err != nil {
			return err
		}
	}
	return nil
}

// add brings a blob into scope. What is a Directory in one place and a file in another stays a Directory.
func (s *scoped) add(p *repb.Digest, k kind) error {
	d, err := digest.FromProto(p)
	if err != nil {
		return err
	}
	s.inScope[d] = max(s.inScope[d], k)
	return nil
}

// Put implements cache.CAS.
func (s *scoped) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	s.mu.Lock()
	if s.written += d.Size(); s.written > maxWritten {
		s.mu.Unlock()
		return fmt.Errorf("a build may write %d bytes; this one has written more", int64(maxWritten))
	}
	s.mu.Unlock()
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

// FindMissing implements cache.CAS.
func (s *scoped) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	missing, err := s.base.FindMissing(ctx, ds)
	if err != nil {
		return nil, err
	}
	gone := map[digest.Digest]bool{}
	for _, d := range missing {
		gone[d] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []digest.Digest
	seen := map[digest.Digest]bool{digest.Empty: true}
	for _, d := range ds {
		_, ok := s.inScope[d]
		if !seen[d] && (gone[d] || !ok) {
			out = append(out, d)
		}
		seen[d] = true
	}
	return out, nil
}

// Endpoint is a CAS served on a unix socket.
type Endpoint struct {
	server *grpc.Server
	socket string
}

// ServeCAS serves cas, by REAPI, on a new unix socket until Close.
func ServeCAS(socket string, cas cache.CAS) (*Endpoint, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(8 << 20))
	server.Register(s, cas, nil)
	go func() { _ = s.Serve(l) }()
	return &Endpoint{s, socket}, nil
}

// Close ends the server and removes its socket.
func (e *Endpoint) Close() error {
	e.server.Stop()
	if err := os.Remove(e.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
