package s3

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// GC condemns what is over the limits, and deletes what was condemned long enough ago. Any node may do it, and several at
// once: swaps that lose are made anew.
//
// It works on packs. A pack is condemned when hardly anything in it is wanted, after what is wanted was copied to a new
// one, so that the set of condemned things stays small enough for every node to know all of it.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	if err := s.probe(ctx); err != nil {
		return GCReport{}, fmt.Errorf("gc: %w", err)
	}
	var total GCReport
	for n := 1; ; n++ {
		r, err := s.gcOnce(ctx, o)
		total.add(r)
		if err == nil {
			s.count.evictions.Add(total.CondemnedRecords)
			return total, nil
		}
		if n == tries || !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNoObject) {
			return total, fmt.Errorf("gc: %w", err)
		}
	}
}

// add takes up the report of another try. Sizes that were measured replace, work that was done adds up.
func (r *GCReport) add(n GCReport) {
	r.LiveBytes, r.Waiting = n.LiveBytes, n.Waiting
	r.CondemnedPacks += n.CondemnedPacks
	r.CondemnedRecords += n.CondemnedRecords
	r.CondemnedBytes += n.CondemnedBytes
	r.MovedRecords += n.MovedRecords
	r.DeletedPacks += n.DeletedPacks
	r.DeletedBytes += n.DeletedBytes
	r.SweptObjects += n.SweptObjects
}

// gcOnce is one try. Its order is what makes it safe: packs that may be strays are listed before the index is read; tails
// are gone before an entry leaves the index that they say the same of; the index no longer names a pack when it is deleted.
func (s *Store) gcOnce(ctx context.Context, o GCOptions) (r GCReport, err error) {
	strays, err := s.oldPacks(ctx)
	if err != nil {
		return r, err
	}
	src, err := s.readSource(ctx)
	if err != nil {
		return r, err
	}
	if !o.DryRun {
		if err := s.deleteTails(ctx, &source{stale: src.stale}); err != nil {
			return r, err
		}
	}
	if err := s.readRuns(ctx, src); err != nil {
		return r, err
	}
	c, err := s.newCollection(ctx, src)
	if err != nil {
		return r, err
	}
	m := next(src.manifest, src.modified)
	dropped := s.ripe(src, m)
	f, err := s.foldAll(ctx, src, m, folding{drop: dropped, touch: c.touches, visit: c.visit, dry: o.DryRun})
	if err != nil {
		return r, err
	}
	chosen := c.choose(f, m, o, secondsOf(s.index.dateOf()))
	r.LiveBytes = c.liveBytes
	r.Waiting = len(m.condemned())
	if o.DryRun {
		c.count(&r, f, chosen)
		return r, nil
	}
	if err := s.finishFold(ctx, src, m, c, dropped, &r); err != nil {
		return r, err
	}
	if err := s.condemn(ctx, f, m, c, chosen, &r); err != nil {
		return r, err
	}
	for i := range dropped {
		delete(strays, i)
	}
	return r, s.sweep(ctx, f, strays, &r)
}

// ripe takes the packs off m's list that were condemned long enough ago, by S3's clock, and returns them. A pack that a
// tail names waits until the tail is gone: a node that starts could take the tail for news.
func (s *Store) ripe(src *source, m *manifest) map[id]bool {
	named := map[id]bool{}
	for _, e := range src.tails {
		if e != nil {
			for _, p := range e.packs {
				named[p.id] = true
			}
		}
	}
	now, grace := s.index.dateOf(), s.grace()
	ripe := map[id]bool{}
	var rest []dying
	for _, d := range m.Dying {
		wait := d.Date <= 0 || now.Sub(time.Unix(d.Date, 0)) <= grace
		for _, p := range d.Packs {
			wait = wait || named[p]
		}
		if wait {
			rest = append(rest, d)
			continue
		}
		for _, p := range d.Packs {
			ripe[p] = true
		}
		m.Floor = max(m.Floor, d.Generation)
	}
	m.Dying = rest
	return ripe
}

// dateOf returns S3's clock when the manifest was last read.
func (x *index) dateOf() time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.date
}

// finishFold makes the folded index the index, and deletes what that leaves behind.
func (s *Store) finishFold(ctx context.Context, src *source, m *manifest, c *collection, dropped map[id]bool, r *GCReport) error {
	if err := s.swapManifest(ctx, m, src.etag); err != nil {
		return err
	}
	if err := s.readManifest(ctx); err != nil {
		return err
	}
	if err := s.deleteTails(ctx, src); err != nil {
		return err
	}
	var keys []string
	for i := range dropped {
		keys = append(keys, packDir+i.String())
	}
	keys = append(keys, c.touchKeys...)
	if len(keys) == 0 {
		return nil
	}
	if err := s.bucket.Delete(ctx, keys); err != nil {
		return fmt.Errorf("delete %d packs: %w", len(dropped), err)
	}
	r.DeletedPacks = len(dropped)
	for _, d := range src.manifest.Dying {
		if len(d.Packs) > 0 && dropped[d.Packs[0]] {
			r.DeletedBytes += d.Bytes
		}
	}
	return nil
}

// condemn copies what is wanted out of the chosen packs, then has the manifest condemn them. The copies are committed
// like any upload, so nothing that is wanted is missing at any time. If another swap changed what is pinned or condemned
// meanwhile, the choice may be wrong: it is made anew.
func (s *Store) condemn(ctx context.Context, f *fold, basis *manifest, c *collection, chosen []uint32, r *GCReport) error {
	if len(chosen) == 0 {
		return nil
	}
	moved, err := s.rescue(ctx, f, c, chosen)
	if err != nil {
		return err
	}
	d := dying{}
	for _, p := range chosen {
		d.Packs = append(d.Packs, f.packs[p].id)
		d.Bytes += f.packs[p].size
	}
	err = s.edit(ctx, func(m *manifest) (bool, error) {
		if !samePins(basis, m) {
			return false, fmt.Errorf("condemn %d packs: %w", len(chosen), ErrConflict)
		}
		d.Generation = m.Generation
		m.Dying = append(m.Dying, d)
		return true, nil
	})
	if err != nil {
		return err
	}
	r.MovedRecords = moved
	r.Waiting += len(chosen)
	c.count(r, f, chosen)
	return nil
}

// samePins reports whether two manifests pin and condemn the same.
func samePins(a, b *manifest) bool {
	if len(a.Roots) != len(b.Roots) || len(a.Dying) != len(b.Dying) || a.Floor != b.Floor {
		return false
	}
	for i := range a.Roots {
		if a.Roots[i].ID != b.Roots[i].ID {
			return false
		}
	}
	for i := range a.Dying {
		if a.Dying[i].Generation != b.Dying[i].Generation {
			return false
		}
	}
	return true
}

// rescue commits the wanted records of the chosen packs once more.
func (s *Store) rescue(ctx context.Context, f *fold, c *collection, chosen []uint32) (int64, error) {
	want := c.wanted(chosen)
	var moved int64
	for p, records := range want {
		n, err := s.copyOut(ctx, f.packs[p].id, slices.Sorted(maps.Keys(records)), func(r *scanned) (uint32, bool) {
			used, ok := records[r.offset]
			return used, ok
		})
		if errors.Is(err, ErrNoObject) {
			err = fmt.Errorf("%w: if it stays gone, scrub sets it aside", err)
		}
		if err != nil {
			return moved, fmt.Errorf("copy what is wanted out of pack %s: %w", f.packs[p].id, err)
		}
		moved += n
	}
	return moved, nil
}

// copyOut commits records of a pack once more, as used as they were. Damaged ones are left behind. Known are the places of
// records, by the index.
func (s *Store) copyOut(ctx context.Context, p id, known []uint32, want func(*scanned) (used uint32, ok bool)) (int64, error) {
	var groups [][]item
	_, _, err := s.scan(ctx, p, known, func(r scanned, err error) {
		used, ok := want(&r)
		if err != nil || !ok || r.payload == nil {
			return
		}
		it := item{header: r.header, payload: r.payload, pointer: r.pointer, used: used, copied: true}
		groups = append(groups, []item{it})
	})
	if err != nil && !errors.Is(err, errFormat) {
		return 0, err
	}
	return int64(len(groups)), s.commits.commit(ctx, groups)
}
