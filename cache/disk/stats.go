package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Stats says how much a store holds.
type Stats struct {
	Blobs       int64 `json:"blobs"`
	Actions     int64 `json:"actions"`
	Bytes       int64 `json:"bytes"`        // of blobs and ActionResults
	PinnedBytes int64 `json:"pinned_bytes"` // those of Bytes that are never evicted
	Quarantined int64 `json:"quarantined"`  // corrupt copies that were set aside
}

// Stats counts the files. Others may change the store meanwhile.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	st, err := s.stats(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("look through the cache %s: %w", s.dir, err)
	}
	return st, nil
}

func (s *Store) stats(ctx context.Context) (st Stats, err error) {
	entries, err := s.scan(ctx)
	if err != nil {
		return st, err
	}
	pinned, err := s.pinned()
	if err != nil {
		return st, err
	}
	quarantined, err := os.ReadDir(s.path("quarantine"))
	if err != nil {
		return st, err
	}
	st.Quarantined = int64(len(quarantined))
	for _, e := range entries {
		if e.name.area == actions {
			st.Actions++
		} else {
			st.Blobs++
		}
		st.Bytes += e.size
		if pinned[e.name.digest] {
			st.PinnedBytes += e.size
		}
	}
	return st, nil
}

// Verified says what Verify read and found.
type Verified struct {
	Blobs   int64     `json:"blobs"`
	Actions int64     `json:"actions"`
	Bytes   int64     `json:"bytes"`
	Corrupt []Corrupt `json:"corrupt"`
}

// Corrupt is a file that was not what its name says and has been set aside.
type Corrupt struct {
	Digest  digest.Digest `json:"digest"`
	Action  bool          `json:"action"` // it is the result of the Action with this digest, and no blob
	Problem string        `json:"problem"`
}

// Verify reads every file and sets the corrupt ones aside. It does not count as a use.
func (s *Store) Verify(ctx context.Context) (Verified, error) {
	entries, err := s.scan(ctx)
	if err != nil {
		return Verified{}, fmt.Errorf("look through the cache %s: %w", s.dir, err)
	}
	var (
		mu sync.Mutex
		v  Verified
	)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, e := range entries {
		g.Go(func() error {
			bad, err := s.verify(ctx, e.name)
			if err != nil {
				return fmt.Errorf("verify %s: %w", e.name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			v.add(e, bad)
			return nil
		})
	}
	err = g.Wait()
	return v, err
}

func (v *Verified) add(e entry, bad error) {
	v.Bytes += e.size
	if e.name.area == actions {
		v.Actions++
	} else {
		v.Blobs++
	}
	if bad != nil {
		v.Corrupt = append(v.Corrupt, Corrupt{e.name.digest, e.name.area == actions, bad.Error()})
	}
}

// verify reads one file. It returns what is wrong with it apart from why that could not be found out.
func (s *Store) verify(ctx context.Context, n name) (bad, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var wrong error
	if n.area == actions {
		wrong, err = errDamaged, s.verifyAction(ctx, n)
	} else {
		wrong, err = digest.ErrMismatch, s.verifyBlob(ctx, n.digest)
	}
	switch {
	case errors.Is(err, wrong):
		return err, nil
	case errors.Is(err, cache.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return nil, nil // evicted since the scan
	}
	return nil, err
}

func (s *Store) verifyBlob(ctx context.Context, d digest.Digest) error {
	r, _, err := s.openBlob(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

func (s *Store) verifyAction(ctx context.Context, n name) error {
	f, err := os.Open(n.path(s))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = readEntry(f, n.digest); errors.Is(err, errDamaged) {
		return s.setAside(ctx, n, f, err)
	}
	return err
}
