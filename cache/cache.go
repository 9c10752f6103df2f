// Package cache holds the two ideas that everything else stands on: a content-addressable store of blobs and an
// ActionCache from the digest of an Action to its ActionResult, as the Remote Execution API v2 defines them.
//
// Backends (memory, disk, …) and decorators (complete, …) implement the same two interfaces; package cachetest holds
// the one suite that all of them pass. Of all errors only [ErrNotFound] is a miss: every other one must surface.
package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/digest"
)

// ErrNotFound is wrapped by the error for a blob or ActionResult that the cache does not hold.
var ErrNotFound = errors.New("not found in the cache")

// ErrFull is wrapped by errors that say that a disk, a quota or the cache's own limit leaves no room.
var ErrFull = errors.New("no room left for the cache")

// CAS is a content-addressable store. Implementations are safe for concurrent use, and keep none of the slices that they
// are given once a call has returned.
type CAS interface {
	// Get returns the blob's bytes. They are verified: a reader that reaches io.EOF has read exactly what d names,
	// and any other content ends in an error that wraps digest.ErrMismatch. An absent blob is ErrNotFound.
	Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error)
	// Put stores r's bytes, which must be those that d names (digest.ErrMismatch otherwise). When it returns nil the
	// blob is durable and visible to every Get. A blob that is present already is success, and r may be left unread.
	Put(ctx context.Context, d digest.Digest, r io.Reader) error
	// FindMissing returns those of ds that are absent, without duplicates, in the order given. The empty blob is
	// never missing. A blob that is found is kept from eviction as if it had just been read.
	FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error)
}

// ActionCache maps an Action's digest to the result of running it. Implementations are safe for concurrent use.
type ActionCache interface {
	// GetActionResult returns what was stored last for the Action, or ErrNotFound.
	GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error)
	// UpdateActionResult stores the result. All that it reaches must be in the CAS before.
	UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error
}

// NotFound returns an ErrNotFound that names the digest.
func NotFound(what string, d digest.Digest) error {
	return fmt.Errorf("%s %s: %w", what, d, ErrNotFound)
}

// ReadBlob returns a blob that the caller holds in memory, at most limit bytes of it.
func ReadBlob(ctx context.Context, c CAS, d digest.Digest, limit int64) ([]byte, error) {
	if d.Size() > limit {
		return nil, fmt.Errorf("blob %s is larger than the %d bytes allowed here", d, limit)
	}
	rc, err := c.Get(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b := bytes.NewBuffer(make([]byte, 0, d.Size()+bytes.MinRead))
	if _, err := b.ReadFrom(rc); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	return b.Bytes(), nil
}

// PutBlob stores b and returns its digest.
func PutBlob(ctx context.Context, c CAS, b []byte) (digest.Digest, error) {
	d := digest.FromBytes(b)
	return d, c.Put(ctx, d, bytes.NewReader(b))
}

// MaxMessage bounds the size of a protocol buffer message read from a CAS: Directories, Trees, Actions, Commands.
const MaxMessage = 64 << 20

// ReadMessage reads the blob d into m.
func ReadMessage(ctx context.Context, c CAS, d digest.Digest, m proto.Message) error {
	b, err := ReadBlob(ctx, c, d, MaxMessage)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("blob %s is not a %s: %w", d, m.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}

// PutMessage stores m in its deterministic encoding and returns its digest.
func PutMessage(ctx context.Context, c CAS, m proto.Message) (digest.Digest, error) {
	b, d, err := digest.Marshal(m)
	if err != nil {
		return digest.Digest{}, err
	}
	return d, c.Put(ctx, d, bytes.NewReader(b))
}
