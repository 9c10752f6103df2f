package s3

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Rebuild makes the index anew from the packs alone, whatever there is of it, and swaps it in. If the
// manifest is lost as well, entries that were condemned or purged come back, and roots are forgotten.
func Rebuild(ctx context.Context, o Options) (RebuildReport, error) {
	b, err := NewClient(ctx, o)
	if err != nil {
		return RebuildReport{}, err
	}
	return RebuildBucket(ctx, b, o)
}

// RebuildBucket is Rebuild on any Bucket.
func RebuildBucket(ctx context.Context, b Bucket, o Options) (RebuildReport, error) {
	s := newStore(b, o)
	defer s.cancel()
	r, err := s.rebuild(ctx)
	if err != nil {
		return r, fmt.Errorf("rebuild the index of bucket %s: %w", o.Bucket, err)
	}
	return r, nil
}

// rebuild reads all packs, and replaces a manifest that is there whatever its state. Its generation is of the clock, so
// that it is after all before it; and its floor is itself, so that a node that does run forgets what it knew.
func (s *Store) rebuild(ctx context.Context) (r RebuildReport, err error) {
	etag, old, err := s.whatIsLeft(ctx)
	if err != nil {
		return r, err
	}
	var tails []string
	if err := s.list(ctx, tailDir, func(o Info, _ time.Time) { tails = append(tails, o.Key) }); err != nil {
		return r, err
	}
	f, err := s.scanAll(ctx, &r)
	if err != nil {
		return r, err
	}
	generation := max(uint64(s.now().UnixMilli()), old.Generation+1)
	m := &manifest{
		Version: manifestVersion, Generation: generation, Floor: generation, Swap: newID(),
		Retention: max(seconds(s.o.Retention), old.Retention), Major: old.Major + 1,
	}
	m.Rules, m.Roots, m.Dying = old.Rules, old.Roots, old.Dying
	src := &source{manifest: &manifest{}, runs: map[id]*entries{}}
	if err := s.writeAll(ctx, src, m, f, folding{}); err != nil {
		return r, err
	}
	m.Folded = nil
	for i := range m.Runs {
		m.Runs[i].Sources = nil
	}
	err = s.swapManifest(ctx, m, etag)
	if errors.Is(err, ErrNoConditionalPut) && etag == "" {
		err = s.putFirst(ctx, m)
	}
	if err != nil {
		return r, err
	}
	if len(tails) > 0 {
		return r, s.bucket.Delete(ctx, tails)
	}
	return r, nil
}

// whatIsLeft returns what can be known of the manifest that is replaced.
func (s *Store) whatIsLeft(ctx context.Context) (etag string, old *manifest, err error) {
	old = &manifest{}
	_, err = s.fetch(ctx, manifestKey, "", func(b []byte, meta Meta) error {
		etag = meta.ETag
		if m, err := decodeManifest(b); err == nil {
			old = m
		}
		return nil
	})
	if errors.Is(err, ErrNoObject) {
		err = nil
	}
	return etag, old, err
}

// scanAll reads the records of all packs.
func (s *Store) scanAll(ctx context.Context, r *RebuildReport) (*fold, error) {
	packs, err := s.listPacks(ctx)
	if err != nil {
		return nil, err
	}
	f := newFold()
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(foldsAtOnce)
	for i, o := range packs {
		g.Go(func() error {
			var items []committed
			_, _, err := s.scan(ctx, i, nil, func(rec scanned, err error) {
				if err == nil {
					items = append(items, rec.committed)
				}
			})
			if err != nil && !errors.Is(err, errFormat) && !errors.Is(err, ErrNoObject) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			r.Packs++
			r.Records += int64(len(items))
			if err != nil && len(r.Bad) < reported {
				r.Bad = append(r.Bad, fmt.Sprintf("pack %s: %v", i, err))
			}
			if len(items) > 0 {
				f.add(tailOf(packRef{i, o.Size, o.Modified.Unix()}, items, secondsOf(o.Modified.Add(time.Second))))
			}
			return nil
		})
	}
	return f, g.Wait()
}
