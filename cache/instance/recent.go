package instance

import (
	"sync"

	"github.com/pexpress/pexpress/cache/digest"
)

// recent is a set of the digests that were added last: between limit and twice as many.
type recent struct {
	limit    int
	mu       sync.RWMutex
	now, old map[digest.Digest]struct{}
}

func newRecent(limit int) *recent {
	return &recent{limit: limit, now: map[digest.Digest]struct{}{}}
}

func (r *recent) add(d digest.Digest) {
	if r.has(d) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.now) >= r.limit {
		r.now, r.old = make(map[digest.Digest]struct{}, r.limit), r.now
	}
	r.now[d] = struct{}{}
}

func (r *recent) has(d digest.Digest) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.now[d]
	if !ok {
		_, ok = r.old[d]
	}
	return ok
}
