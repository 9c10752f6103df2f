package pack

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
)

// has reports whether a blob need not be stored again. With a promise to keep, one whose last use is long ago is stored
// anew, which records the use as well; else it might be evicted before the caller names it.
func (c *Cache) has(d digest.Digest) bool {
	if d.IsEmpty() {
		return true
	}
	r := refOf(d, c.ns, 0)
	at, ok := c.s.locate(&r)
	return ok && at.size() == d.Size() && !c.s.stale(&at.entry, c.s.seconds())
}

// stale reports whether a use has to be recorded before the entry may be called present.
func (s *Store) stale(e *entry, now uint32) bool {
	half := int64(s.opts.Retention / time.Second / 2)
	return half > 0 && int64(e.touched())+half < int64(now)
}

// FindMissing implements cache.CAS. With Options.Retention, what it finds it promises.
func (c *Cache) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var missing []digest.Digest
	touch := &chunk{}
	var touched []digest.Digest
	now := c.s.seconds()
	const stride = 2048 // looked up under one lock
	for from := 0; from < len(ds); from += stride {
		c.s.mu.RLock()
		for i := from; i < min(from+stride, len(ds)); i++ {
			r := refOf(ds[i], c.ns, 0)
			e := c.s.table.find(&r)
			switch {
			case e != nil && e.size() == ds[i].Size():
				if c.s.opts.Retention == 0 {
					if e.touched() != now {
						atomic.StoreUint32(&e.touch, now)
					}
				} else if c.s.stale(e, now) {
					touch.add(record{kind: kindTouch, ns: c.ns, digest: ds[i], time: now})
					touched = append(touched, ds[i])
				}
			case ds[i].IsZero():
				c.s.mu.RUnlock()
				return nil, fmt.Errorf("find missing blobs: %w: no digest given", digest.ErrInvalid)
			case !ds[i].IsEmpty():
				missing = append(missing, ds[i])
			}
		}
		c.s.mu.RUnlock()
	}
	if len(touched) > 0 {
		if err := c.s.commit(touch); err != nil {
			return nil, fmt.Errorf("find missing blobs: record their use: %w", err)
		}
		for _, d := range touched { // evicted before the touch was recorded?
			if !c.has(d) {
				missing = append(missing, d)
			}
		}
	}
	return unique(missing), nil
}

// unique removes what stands there before.
func unique(ds []digest.Digest) []digest.Digest {
	if len(ds) < 2 {
		return ds
	}
	seen := make(map[digest.Digest]struct{}, len(ds))
	n := 0
	for _, d := range ds {
		if _, ok := seen[d]; !ok {
			seen[d] = struct{}{}
			ds[n] = d
			n++
		}
	}
	return ds[:n]
}
