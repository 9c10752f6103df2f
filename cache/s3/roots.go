package s3

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// AddRoot pins the digests: gc condemns none of them until RemoveRoot. It replaces a root of that name. An error that
// wraps cache.ErrNotFound names those that are absent or condemned already: put them again, then try again.
//
// What the digests need is checked against the very manifest that the swap replaces, so that a collector either sees the
// root, or was first and the check sees what it condemned.
func (s *Store) AddRoot(ctx context.Context, namespace, name string, ds []digest.Digest) error {
	began := s.now()
	r := root{ID: newID(), Namespace: namespace, Name: name, Digests: len(ds), Added: began.Unix()}
	err := s.Namespace(namespace).mayWrite()
	if err == nil {
		err = s.checkRoot(ctx, namespace, ds)
	}
	if err == nil {
		_, err = s.bucket.Put(ctx, rootDir+r.ID.String(), pins(namespace, ds).encode())
	}
	if err == nil {
		err = s.edit(ctx, func(m *manifest) (bool, error) {
			if took := since(s.now(), began); took > s.o.commitLimit {
				return false, fmt.Errorf("it took %s, and gc may have swept what it wrote: try again", took.Round(time.Second))
			}
			m.Roots = append(withoutRoot(m.Roots, namespace, name), r)
			return true, s.checkRoot(ctx, namespace, ds)
		})
	}
	if err != nil {
		return fmt.Errorf("add root %q of namespace %q: %w", name, namespace, err)
	}
	return nil
}

// checkRoot fails unless all of ds are present by the view, or a newer one: a swap by the older one then fails.
func (s *Store) checkRoot(ctx context.Context, namespace string, ds []digest.Digest) error {
	for _, d := range ds {
		if err := checkDigest(d); err != nil {
			return err
		}
	}
	missing, err := s.Namespace(namespace).FindMissing(ctx, ds)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d of its blobs are missing, put them again: %w", len(missing), cache.NotFound("blob", missing[0]))
	}
	return nil
}

func withoutRoot(roots []root, namespace, name string) []root {
	return slices.DeleteFunc(roots, func(r root) bool { return r.Namespace == namespace && r.Name == name })
}

// pins lists digests as entries without a place.
func pins(namespace string, ds []digest.Digest) *entries {
	e := &entries{packs: []packRef{{}}, namespaces: []string{namespace}}
	for _, d := range ds {
		if !d.IsEmpty() {
			e.all = append(e.all, entry{key: makeKey(0, kindBlob, d)})
		}
	}
	return e
}

// RemoveRoot unpins; a root that is not there is success.
func (s *Store) RemoveRoot(ctx context.Context, namespace, name string) error {
	err := s.edit(ctx, func(m *manifest) (bool, error) {
		n := len(m.Roots)
		m.Roots = withoutRoot(m.Roots, namespace, name)
		return len(m.Roots) < n, nil
	})
	if err != nil {
		return fmt.Errorf("remove root %q of namespace %q: %w", name, namespace, err)
	}
	return nil
}

// Roots lists what is pinned.
func (s *Store) Roots(ctx context.Context) ([]Root, error) {
	if err := s.readManifest(ctx); err != nil {
		return nil, err
	}
	m, _, _ := s.index.snapshot()
	out := make([]Root, 0, len(m.Roots))
	for _, r := range m.Roots {
		out = append(out, Root{r.Namespace, r.Name, r.Digests, time.Unix(r.Added, 0)})
	}
	return out, nil
}

// Purge removes ActionCache entries by who wrote them and when. Other nodes obey within Freshness. The blobs stay: they
// are what their digests say. First take the right to write from whoever it was: what is written later is not removed.
func (s *Store) Purge(ctx context.Context, p PurgeFilter) (PurgeReport, error) {
	if p.Principal == "" && p.Since.IsZero() {
		return PurgeReport{}, errors.New("purge: say whose entries, or since when, or both")
	}
	r := rule{Principal: p.Principal, Any: p.Principal == "", Namespace: p.Namespace, Everywhere: p.AllNamespaces}
	if !p.Since.IsZero() {
		r.Since = p.Since.UnixNano()
	}
	var report PurgeReport
	err := s.edit(ctx, func(m *manifest) (bool, error) {
		if err := s.loadAll(ctx); err != nil {
			return false, err
		}
		report, r.Until = s.index.matching(r)
		r.Until = max(r.Until, s.tick())
		m.Rules = append(m.Rules, r)
		return !p.DryRun, nil
	})
	if err != nil {
		return PurgeReport{}, fmt.Errorf("purge: %w", err)
	}
	return report, nil
}

// loadAll looks at the bucket and reads all shards.
func (s *Store) loadAll(ctx context.Context) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	return s.answer(ctx, question{local: true, ask: func(x *index) (need []int, _ bool) {
		for i := range shardCount {
			if !x.shardReady(i) {
				need = append(need, i)
			}
		}
		return need, false
	}})
}

// matching counts the actions that r voids, whenever they were written, and returns the time of the latest.
func (x *index) matching(r rule) (report PurgeReport, latest int64) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r.Until = 1<<63 - 1
	report.Principals = map[string]int64{}
	for i := range shardCount {
		x.actions[i].each(func(k *key, a *action) {
			if who := x.principals.all[a.principal]; r.match(x.namespaces.all[k.namespace()], who, join(a.time)) {
				report.Entries++
				report.Principals[who]++
				latest = max(latest, join(a.time))
			}
		})
	}
	return report, latest
}
