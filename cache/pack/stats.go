package pack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Stats says what a store holds and has done since it was opened.
type Stats struct {
	Entries         int   // blobs and ActionResults
	Bytes           int64 // on disk, with what is held for uploads under way
	MaxBytes        int64
	Segments        int
	Hits, Misses    int64
	Commits         int64 // syncs that made writes durable
	Evicted         int64 // entries
	EvictedSegments int64
	Carried         int64 // entries that an eviction carried over
	Damaged         int64 // entries set aside because they could not be read
}

// Stats returns the figures of this moment.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Stats{
		Entries: s.table.n, Bytes: s.used.Load() + s.held.Load(), MaxBytes: s.opts.MaxBytes, Segments: len(s.segments),
		Hits: s.stats.hits.Load(), Misses: s.stats.misses.Load(), Commits: s.stats.commits.Load(),
		Evicted: s.stats.evicted.Load(), EvictedSegments: s.stats.evictedSegments.Load(),
		Carried: s.stats.carried.Load(), Damaged: s.stats.damaged.Load(),
	}
}

// FindHash returns the digest of the blob with the given hash, for protocols that name blobs without their size.
func (c *Cache) FindHash(ctx context.Context, fn digest.Function, sum [digest.Size]byte) (digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return digest.Digest{}, err
	}
	d := fn.FromSum(sum, 0)
	if d.IsEmpty() {
		return d, nil
	}
	r := refOf(d, c.ns, 0)
	at, ok := c.s.locate(&r)
	if !ok {
		return digest.Digest{}, cache.NotFound("blob", d)
	}
	return fn.FromSum(sum, at.size()), nil
}

// snapshot returns all entries.
func (s *Store) snapshot() []entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]entry, 0, s.table.n)
	s.table.all(func(e *entry) bool {
		all = append(all, *e)
		return true
	})
	return all
}

// Action is what the store knows of one ActionResult besides its content.
type Action struct {
	Namespace string
	Digest    digest.Digest // of the Action
	Writer    string
	Time      time.Time // of writing, or of the last time that an eviction carried it over
}

// Actions calls f for every ActionResult until it returns false.
func (s *Store) Actions(ctx context.Context, f func(Action) bool) error {
	for _, e := range s.snapshot() {
		if e.class&classAction == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r := e.ref()
		at, ok := s.locate(&r)
		if !ok || at.g == nil {
			continue
		}
		rec, payload, err := at.g.read(at.offset(), at.size(), nil)
		if err != nil {
			continue // Verify finds it
		}
		writer, _, err := cutWriter(payload)
		if err != nil {
			continue
		}
		if !f(Action{Namespace: s.names.of(r.ns), Digest: rec.digest, Writer: writer, Time: time.Unix(int64(rec.time), 0)}) {
			return nil
		}
	}
	return nil
}

// Blobs calls f for every blob until it returns false.
func (s *Store) Blobs(ctx context.Context, f func(namespace string, d digest.Digest) bool) error {
	for _, e := range s.snapshot() {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := e.ref()
		at, ok := s.locate(&r)
		if e.class&classAction != 0 || !ok {
			continue
		}
		d, err := s.digestOf(at)
		if err != nil {
			continue // Verify finds it
		}
		if !f(s.names.of(r.ns), d) {
			return nil
		}
	}
	return nil
}

// digestOf returns the whole digest of a blob.
func (s *Store) digestOf(at located) (digest.Digest, error) {
	if at.isFile() {
		return s.fileDigest(at)
	}
	if at.g == nil {
		return digest.Digest{}, ErrClosed
	}
	rec, _, err := at.g.read(at.offset(), at.size(), nil)
	return rec.digest, err
}

// Report is what Verify found.
type Report struct {
	Checked int
	Bytes   int64
	Damaged []string // what was set aside
}

// Verify reads everything and sets aside what is damaged.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	var rep Report
	for _, e := range s.snapshot() {
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		r := e.ref()
		at, ok := s.locate(&r)
		if !ok || at.loc != e.loc {
			continue
		}
		if err := s.verify(at); errors.Is(err, digest.ErrMismatch) || errors.Is(err, cache.ErrNotFound) {
			rep.Damaged = append(rep.Damaged, err.Error())
		} else if err != nil {
			return rep, err
		}
		rep.Checked++
		rep.Bytes += e.size()
	}
	return rep, nil
}

// verify reads one entry whole and hashes it.
func (s *Store) verify(at located) error {
	if at.isFile() {
		d, err := s.fileDigest(at)
		if err != nil {
			return err
		}
		return s.readThrough(at, d)
	}
	if at.g == nil {
		return ErrClosed
	}
	rec, payload, err := at.g.read(at.offset(), at.size(), nil)
	if errors.Is(err, errGone) {
		return nil // evicted meanwhile
	}
	if err == nil && at.class&classAction == 0 && rec.digest.Function().FromBytes(payload) != rec.digest {
		err = fmt.Errorf("%w: wrong content", errRecord)
	}
	if err == nil {
		return nil
	}
	if rec.digest.IsZero() { // the header itself is damaged: the key is half of the hash, and enough to drop the entry
		var sum [digest.Size]byte
		copy(sum[:], at.key[:])
		rec.digest = digest.Function(at.class&classFunction).FromSum(sum, at.size())
	}
	return s.damaged(at, rec.digest, err)
}
