package s3

import (
	"context"
	"fmt"
	"time"
)

// listPacks lists all packs.
func (s *Store) listPacks(ctx context.Context) (map[id]Info, error) {
	packs := map[id]Info{}
	err := s.list(ctx, packDir, func(o Info, _ time.Time) {
		if i, ok := idOf(packDir, o.Key); ok {
			packs[i] = o
		}
	})
	return packs, err
}

// oldPacks lists the packs that are so old that nothing can begin to name them any more. Their age is that of when they
// were listed: gc may take hours from here to the sweep, and must not take what was young for what is old.
func (s *Store) oldPacks(ctx context.Context) (map[id]Info, error) {
	packs := map[id]Info{}
	age := s.sweepAge()
	err := s.list(ctx, packDir, func(o Info, now time.Time) {
		if i, ok := idOf(packDir, o.Key); ok && o.Modified.Before(now.Add(-age)) {
			packs[i] = o
		}
	})
	return packs, err
}

// sweepAge is the age at which an object that nothing names is one that a crashed writer left. A tail that is written
// more than commitLimit after its pack is void, and requests on their way last minutes, so what is this old stays unnamed.
func (s *Store) sweepAge() time.Duration { return 2 * s.o.commitLimit }

// sweep deletes what crashed commits, lost races and replaced indexes left. The packs were listed before the index was
// read, so that none of them was committed unseen meanwhile.
func (s *Store) sweep(ctx context.Context, f *fold, packs map[id]Info, r *GCReport) error {
	m, _, _ := s.index.snapshot()
	before := s.index.dateOf().Add(-s.sweepAge())
	var keys []string
	dying := m.condemned()
	for i, o := range packs {
		if _, named := f.packOf[i]; !named && !dying[i] {
			keys = append(keys, o.Key)
		}
	}
	named := m.objects()
	for _, dir := range []string{runDir, shardDir, rootDir, probeDir} {
		err := s.list(ctx, dir, func(o Info, _ time.Time) {
			if !named[o.Key] && o.Modified.Before(before) {
				keys = append(keys, o.Key)
			}
		})
		if err != nil {
			return err
		}
	}
	if len(keys) > 0 {
		if err := s.bucket.Delete(ctx, keys); err != nil {
			return fmt.Errorf("sweep %d objects: %w", len(keys), err)
		}
	}
	n, err := s.bucket.AbortUploads(ctx, packDir, before)
	r.SweptObjects += len(keys) + n
	if err != nil {
		return fmt.Errorf("end uploads that were left: %w", err)
	}
	return nil
}

// objects returns the keys of all that m names but packs.
func (m *manifest) objects() map[string]bool {
	set := map[string]bool{}
	for _, r := range m.Runs {
		set[runDir+r.ID.String()] = true
	}
	for _, p := range m.Shards {
		set[shardDir+p.ID.String()] = true
	}
	for _, r := range m.Roots {
		set[rootDir+r.ID.String()] = true
	}
	return set
}
