package s3

import (
	"context"
	"fmt"
	"sync"

	"github.com/pexpress/pexpress/cache/digest"
)

// touches are uses to be written to the bucket. They rank entries and decide nothing else, so losing some is no harm.
type touches struct {
	mu   sync.Mutex
	all  map[touched]uint32
	full chan struct{} // wakes whoever writes them
}

type touched struct {
	namespace string
	kind      kind
	digest    digest.Digest
}

// maxTouches is how many are gathered at most before they are written.
const maxTouches = 1 << 16

// touchPlace notes the use of an entry. The index's read lock is held.
func (s *Store) touchPlace(x *index, p *place, namespace string, k kind, d digest.Digest) {
	now := s.now()
	if s.o.ReadOnly || !due(p, now, s.o.TouchAfter) {
		return
	}
	s.touches.mu.Lock()
	defer s.touches.mu.Unlock()
	if len(s.touches.all) >= maxTouches { // the place stays as it was, so that the next use is noted
		select {
		case s.touches.full <- struct{}{}:
		default:
		}
		return
	}
	if touch(p, now, s.o.TouchAfter) {
		s.touches.all[touched{namespace, k, d}] = secondsOf(now)
	}
}

// restore takes back what could not be written.
func (t *touches) restore(all map[touched]uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, used := range all {
		if _, ok := t.all[k]; ok || len(t.all) < maxTouches {
			t.all[k] = max(t.all[k], used)
		}
	}
}

// flushTouches writes what was gathered as one object.
func (s *Store) flushTouches(ctx context.Context) error {
	s.touches.mu.Lock()
	all := s.touches.all
	s.touches.all = map[touched]uint32{}
	s.touches.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	e := &entries{packs: []packRef{{}}}
	spaces := names{of: map[string]uint32{}}
	principals := names{of: map[string]uint32{}}
	principals.number("")
	for t, used := range all {
		en := entry{key: makeKey(spaces.number(t.namespace), t.kind, t.digest), used: used}
		if t.kind == kindAction {
			en.target.result = t.digest // a place holder: touches have no target
		}
		e.all = append(e.all, en)
	}
	e.namespaces, e.principals = spaces.all, principals.all
	if _, err := s.bucket.Put(ctx, touchDir+newID().String(), e.encode()); err != nil {
		s.touches.restore(all)
		return fmt.Errorf("write %d touches: %w", len(all), err)
	}
	return nil
}
