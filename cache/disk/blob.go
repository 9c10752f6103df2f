package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Get implements cache.CAS. The package comment says what becomes of a corrupt copy.
func (s *Store) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkDigest(d); err != nil {
		return nil, fmt.Errorf("get blob: %w", err)
	}
	if d.IsEmpty() {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	r, mtime, err := s.openBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	s.renew(r.file.Name(), mtime)
	return r, nil
}

// Put implements cache.CAS.
func (s *Store) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := s.put(ctx, d, r); err != nil {
		return fmt.Errorf("put blob %s: %w", d, s.explain(err))
	}
	return nil
}

func (s *Store) put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := errors.Join(ctx.Err(), checkDigest(d)); err != nil {
		return err
	}
	if d.IsEmpty() {
		return nil
	}
	n := name{blobs, d}
	state, err := s.look(n)
	if err != nil {
		return err
	}
	if state.present {
		return s.settle(n, state)
	}
	if err := s.checkRoom(d.Size()); err != nil {
		return err
	}
	f, err := s.stage(n, digest.NewReader(io.NopCloser(&contextReader{ctx, r}), d), true)
	if err != nil {
		return err
	}
	defer os.Remove(f.temp) // it is still there only after an error
	return s.publish(ctx, []staged{f}, syncDirs)
}

// settle makes sure that a blob that was found is durable: the one who stored it moments ago may have been killed, or
// may not have come as far yet.
func (s *Store) settle(n name, state blobState) error {
	if !state.fresh {
		return nil
	}
	return syncDir(n.dir(s))
}

// checkRoom refuses what could not stay even in an otherwise empty store.
func (s *Store) checkRoom(size int64) error {
	if s.maxBytes > 0 && size > s.maxBytes {
		return fmt.Errorf("%w: %d bytes are more than its limit of %d; raise the limit", cache.ErrFull, size, s.maxBytes)
	}
	return nil
}

// contextReader fails once its context has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
