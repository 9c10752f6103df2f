// Package tiered puts a fast cache in front of one that keeps what it is given: a disk before a bucket.
//
// Reads go to the front, and on a miss there to the back, which fills the front on the way: the first byte is handed on
// before the last has come, and however many ask for a blob at one time, it is fetched once. A write is acknowledged when
// the back has it; [WriteBack] acknowledges when it is in a journal on this machine's disk. Presence is the back's to
// tell, since only the back makes promises: the front may evict what it likes, fail, or be wiped, and nothing is lost.
package tiered

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/full"
)

// Back is the tier that keeps. An ActionResult is a blob in it, which GetAction finds: so results, too, are read through
// the front.
type Back interface {
	cache.CAS
	cache.ActionCache
	// GetAction returns the digest of the result message of an action.
	GetAction(ctx context.Context, action digest.Digest) (digest.Digest, error)
}

// Cache is a front and a back. It implements cache.CAS and cache.ActionCache.
type Cache struct {
	front full.CAS
	back  Back
	blobs full.CAS // of the back
	fills fills
	warn  func(error)
}

var (
	_ cache.CAS         = (*Cache)(nil)
	_ cache.ActionCache = (*Cache)(nil)
	_ cache.BatchPutter = (*Cache)(nil)
	_ cache.BatchGetter = (*Cache)(nil)
	_ cache.RangeGetter = (*Cache)(nil)
	_ cache.ZstdGetter  = (*Cache)(nil)
)

// New returns the two as one. Large blobs on their way from the back are in files without a name in the directory spool.
// Failures of the front that cost speed and nothing else are given to warn.
func New(front cache.CAS, back Back, spool string, warn func(error)) *Cache {
	return &Cache{front: full.Of(front), back: back, blobs: full.Of(back), fills: fills{dir: spool, running: map[digest.Digest]*fill{}}, warn: warn}
}

// Wait returns when nothing is on its way to the front any more. Call it before the front is closed, when no reader is
// left.
func (c *Cache) Wait() { c.fills.all.Wait() }

// frontMiss reports whether the back has to be asked, after the front returned err. A front that cannot read what it
// holds costs a trip to the back, not the caller's success.
func (c *Cache) frontMiss(ctx context.Context, err error) bool {
	if err == nil {
		return false
	}
	if !errors.Is(err, cache.ErrNotFound) && !errors.Is(err, digest.ErrInvalid) && ctx.Err() == nil {
		c.warn(fmt.Errorf("read from the near tier: %w", err))
	}
	return true
}

// keep puts a small blob into the front.
func (c *Cache) keep(ctx context.Context, blobs []cache.Blob) {
	if err := cache.PutAll(context.WithoutCancel(ctx), c.front, blobs); err != nil {
		c.warn(fmt.Errorf("write to the near tier: %w", err))
	}
}

// Get implements cache.CAS.
func (c *Cache) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	return c.GetFrom(ctx, d, 0)
}

// GetFrom implements cache.RangeGetter.
func (c *Cache) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := c.front.GetFrom(ctx, d, offset)
	if !c.frontMiss(ctx, err) {
		return rc, err
	}
	rc, err = c.fills.read(ctx, c, d, offset)
	if !errors.Is(err, errFilled) {
		return rc, err
	}
	if rc, err = c.front.GetFrom(ctx, d, offset); !c.frontMiss(ctx, err) {
		return rc, err
	}
	return c.blobs.GetFrom(ctx, d, offset) // the front has what it can't read
}

// GetZstd implements cache.ZstdGetter for what is in the front.
func (c *Cache) GetZstd(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := c.front.GetZstd(ctx, d, offset)
	if errors.Is(err, cache.ErrNoZstd) {
		return nil, err
	}
	if c.frontMiss(ctx, err) {
		return nil, fmt.Errorf("%w: %s", cache.ErrNoZstd, d)
	}
	return rc, err
}

// GetMany implements cache.BatchGetter.
func (c *Cache) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	var found []cache.Blob
	far := func(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
		return c.blobs.GetMany(ctx, ds, func(i int, data []byte, err error) {
			if err == nil {
				found = append(found, cache.Blob{Digest: ds[i], Data: bytes.Clone(data)})
			}
			each(i, data, err)
		})
	}
	err := full.Either(c.front.GetMany, far, func(err error) bool { return c.frontMiss(ctx, err) })(ctx, ds, each)
	if len(found) > 0 {
		c.keep(ctx, found)
	}
	return err
}

// FindMissing implements cache.CAS.
func (c *Cache) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	return c.back.FindMissing(ctx, ds)
}

// small is the size up to which a blob is held in memory on its way.
const small = 1 << 20

// Put implements cache.CAS.
func (c *Cache) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if d.IsZero() {
		return fmt.Errorf("put blob: %w: no digest given", digest.ErrInvalid)
	}
	if d.Size() <= small {
		b, err := io.ReadAll(digest.NewReader(io.NopCloser(r), d))
		if err != nil {
			return fmt.Errorf("put blob %s: %w", d, err)
		}
		return c.PutMany(ctx, []cache.Blob{{Digest: d, Data: b}})
	}
	pr, pw := io.Pipe()
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		err := c.front.Put(ctx, d, pr)
		if err != nil && !errors.Is(err, errUnread) && ctx.Err() == nil && !errors.Is(err, digest.ErrMismatch) {
			c.warn(fmt.Errorf("write to the near tier: %w", err))
		}
		_, _ = io.Copy(io.Discard, pr) // it may have the blob already, or have failed: the back reads on
	}()
	copied := &counter{w: pw}
	err := c.back.Put(ctx, d, io.TeeReader(r, copied))
	if err == nil && copied.n == d.Size() {
		pw.Close()
	} else {
		pw.CloseWithError(errUnread) // whoever has the blob already leaves it unread, and the copy isn't whole
	}
	<-kept
	return err
}

// errUnread ends the front's copy of an upload that was not read to its end.
var errUnread = errors.New("the upload ended")

// counter counts what is written to w.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// PutMany implements cache.BatchPutter.
func (c *Cache) PutMany(ctx context.Context, blobs []cache.Blob) error {
	kept := make(chan error, 1)
	go func() { kept <- cache.PutAll(ctx, c.front, blobs) }()
	err := cache.PutAll(ctx, c.back, blobs)
	if kept := <-kept; kept != nil && err == nil && ctx.Err() == nil {
		c.warn(fmt.Errorf("write to the near tier: %w", kept))
	}
	return err
}

// GetActionResult implements cache.ActionCache.
func (c *Cache) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	d, err := c.back.GetAction(ctx, action)
	if err != nil {
		return nil, err
	}
	ar := new(repb.ActionResult)
	if err := cache.ReadMessage(ctx, c, d, ar); err != nil {
		return nil, fmt.Errorf("result of action %s: %w", action, err)
	}
	return ar, nil
}

// UpdateActionResult implements cache.ActionCache.
func (c *Cache) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	if err := c.back.UpdateActionResult(ctx, action, result); err != nil {
		return err
	}
	if b, err := (proto.MarshalOptions{Deterministic: true}).Marshal(result); err == nil {
		c.keep(ctx, []cache.Blob{{Digest: action.Function().FromBytes(b), Data: b}})
	}
	return nil
}
