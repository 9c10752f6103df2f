package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
)

// blobReader reads a blob's file, verifies it, and sets it aside when it is corrupt.
type blobReader struct {
	ctx    context.Context
	store  *Store
	name   name
	file   *os.File
	verify io.Reader
	err    error
}

// openBlob opens a blob without renewing its time of last use, which it returns.
func (s *Store) openBlob(ctx context.Context, d digest.Digest) (*blobReader, time.Time, error) {
	n := name{blobs, d}
	f, err := os.Open(n.path(s))
	if err != nil {
		return nil, time.Time{}, notFound(n, err)
	}
	fi, err := f.Stat()
	if err == nil && fi.Size() != d.Size() {
		err = s.setAside(ctx, n, f, fmt.Errorf("%w: the file of blob %s has %d bytes", digest.ErrMismatch, d, fi.Size()))
	}
	if err != nil {
		return nil, time.Time{}, errors.Join(err, f.Close())
	}
	return &blobReader{ctx: ctx, store: s, name: n, file: f, verify: digest.NewReader(f, d)}, fi.ModTime(), nil
}

func (r *blobReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.verify.Read(p)
	if errors.Is(err, digest.ErrMismatch) {
		err = r.store.setAside(r.ctx, r.name, r.file, err)
	}
	r.err = err
	return n, err
}

func (r *blobReader) Close() error { return r.file.Close() }

// setAside moves the corrupt open file to quarantine/, unless a good copy has taken its place by now, and returns
// cause with that added. It does so even when ctx has ended: the bad copy must not stay.
func (s *Store) setAside(ctx context.Context, n name, f *os.File, cause error) error {
	to := s.path("quarantine", string(n.area)+"-"+n.file())
	moved := false
	err := s.withLedger(context.WithoutCancel(ctx), func(l *ledger) error {
		fi, err := f.Stat()
		if err != nil || !sameFile(f, n.path(s)) {
			return err
		}
		if err := os.Rename(n.path(s), to); err != nil {
			return err
		}
		moved = true
		_ = os.Chtimes(to, time.Time{}, time.Now()) // from now on GC counts the days
		l.Bytes -= fi.Size()
		l.Files--
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w; it could not be set aside: %w", cause, s.explain(err))
	case moved:
		return fmt.Errorf("%w; the copy was set aside as %s, fetch or build it again", cause, to)
	}
	return cause
}
