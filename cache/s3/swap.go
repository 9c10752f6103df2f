package s3

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// edits is how often a change of the manifest is tried anew after another node was first.
const edits = 12

// snapshot returns the manifest in view with its ETag and date.
func (x *index) snapshot() (m *manifest, etag string, modified time.Time) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.manifest, x.etag, x.modified
}

// edit changes the manifest by f, which gets a copy of the newest one, again after each lost race, and reports whether
// there is anything to write.
func (s *Store) edit(ctx context.Context, f func(*manifest) (bool, error)) error {
	var err error
	for n := range edits {
		if n > 0 {
			if err := sleep(ctx, s.jitter(50*time.Millisecond<<min(n, 6))); err != nil {
				return err
			}
		}
		if err = s.readManifest(ctx); err != nil {
			return err
		}
		old, etag, modified := s.index.snapshot()
		m := next(old, modified)
		write, err2 := f(m)
		if err2 != nil || !write {
			return err2
		}
		if err = s.swapManifest(ctx, m, etag); err == nil {
			err = s.readManifest(ctx)
			return err
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("swap the manifest: %d tries: %w", edits, err)
}

// next returns a copy of m for the generation after it. What m condemned gets a date: m's own, by S3's clock, which is
// never before the condemning.
func next(m *manifest, modified time.Time) *manifest {
	n := m.clone()
	n.Generation, n.Swap = m.Generation+1, newID()
	for i := range n.Dying {
		if n.Dying[i].Date == 0 && !modified.IsZero() {
			n.Dying[i].Date = modified.Unix()
		}
	}
	return n
}

// swapManifest puts m in place of the manifest of the given ETag. When S3's answer leaves open whether that was done, a
// look at the manifest says it: every swap carries an id of its own. A swap that seems lost may still be done later by a
// request on its way, so nothing that m names may be deleted before it is as old as what crashed writers leave.
func (s *Store) swapManifest(ctx context.Context, m *manifest, etag string) error {
	if err := s.probe(ctx); err != nil {
		return err
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	if _, err = s.bucket.Swap(ctx, manifestKey, b, etag); err == nil {
		return nil
	}
	var now *manifest
	_, err2 := s.fetch(ctx, manifestKey, "", func(b []byte, _ Meta) (err error) {
		now, err = decodeManifest(b)
		return err
	})
	if err2 == nil && now.Swap == m.Swap {
		return nil
	}
	return fmt.Errorf("swap the manifest: %w", err)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// probe tests once whether the bucket honours conditions: on a key of its own, a second If-None-Match and a wrong If-Match
// must be refused and a right one accepted. A bucket that does not would let two nodes undo each other's swaps.
func (s *Store) probe(ctx context.Context) error {
	if s.o.ReadOnly {
		return errReadOnly
	}
	if p := s.probed.Load(); p != nil {
		return *p
	}
	done := s.loading.DoChan("probe", func() (any, error) {
		err := s.probeNow(s.ctx)
		if err == nil || errors.Is(err, ErrNoConditionalPut) {
			s.probed.Store(&err)
		}
		return nil, err
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// probeCommit is the part of the probe that every writer needs: a bucket without conditions can be written to.
func (s *Store) probeCommit(ctx context.Context) error {
	if err := s.probe(ctx); err != nil && !errors.Is(err, ErrNoConditionalPut) {
		return err
	}
	return nil
}

func (s *Store) probeNow(ctx context.Context) error {
	key := probeDir + newID().String()
	first, err := s.bucket.Swap(ctx, key, []byte("first"), "")
	if err != nil {
		return fmt.Errorf("probe conditional puts: %w", err)
	}
	defer func() { _ = s.bucket.Delete(ctx, []string{key}) }() // gc sweeps what is left
	if err := s.probeDates(ctx, key, first.Date); err != nil {
		return err
	}
	refused := func(body, etag string) error {
		_, err := s.bucket.Swap(ctx, key, []byte(body), etag)
		switch {
		case err == nil:
			return fmt.Errorf("%w: it took a put whose condition did not hold", ErrNoConditionalPut)
		case errors.Is(err, ErrConflict):
			return nil
		default:
			return fmt.Errorf("probe conditional puts: %w", err)
		}
	}
	if err := refused("again", ""); err != nil {
		return err
	}
	if _, err := s.bucket.Swap(ctx, key, []byte("second"), first.ETag); err != nil && !s.holds(ctx, key, "second") {
		if errors.Is(err, ErrConflict) {
			return fmt.Errorf("%w: it refused a put whose condition held", ErrNoConditionalPut)
		}
		return fmt.Errorf("probe conditional puts: %w", err)
	}
	return refused("third", first.ETag)
}

// probeDates compares the date of an answer with that of the object in a listing. A commit counts by both: where they are
// told by different clocks, it could be acknowledged and void.
func (s *Store) probeDates(ctx context.Context, key string, put time.Time) error {
	var modified time.Time
	err := s.list(ctx, key, func(o Info, _ time.Time) { modified = o.Modified })
	if err != nil {
		return fmt.Errorf("probe dates: %w", err)
	}
	if off := modified.Sub(put).Abs(); put.IsZero() || off > maxAnswer {
		return fmt.Errorf("probe dates: the bucket's answers are of %s and its listings say %s: set its clocks", put, modified)
	}
	return nil
}

// holds reports whether a put that seems to have failed was done.
func (s *Store) holds(ctx context.Context, key, body string) bool {
	same := false
	_, err := s.fetch(ctx, key, "", func(b []byte, _ Meta) error {
		same = string(b) == body
		return nil
	})
	return err == nil && same
}
