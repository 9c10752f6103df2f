package s3

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// wakeCompaction has the tails folded in the background if there are many.
func (s *Store) wakeCompaction(tails int) {
	if s.o.Manual || s.o.ReadOnly || s.o.CompactAt < 0 || tails < s.o.CompactAt {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// compactLater lets other nodes, which see the same tails, be first, and folds what is left.
func (s *Store) compactLater(ctx context.Context) error {
	if err := sleep(ctx, s.jitter(3*time.Second)); err != nil {
		return err
	}
	listed, err := s.listTails(ctx)
	if err != nil {
		return err
	}
	if s.count.tails.Store(int64(len(listed))); len(listed) < s.o.CompactAt {
		return nil
	}
	err = s.Compact(ctx)
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrNoConditionalPut) {
		return nil // another node was first, or nobody can be
	}
	return err
}

// Compact folds the tails into the index now. Any node may do so at any time, and several at once: one of them wins.
func (s *Store) Compact(ctx context.Context) error {
	return s.compacting.do(ctx, func() error { return s.compact(s.ctx) })
}

func (s *Store) compact(ctx context.Context) error {
	if err := s.probe(ctx); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	var err error
	for range tries {
		if err = s.compactOnce(ctx); err == nil {
			s.count.compactions.Add(1)
			return nil
		}
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNoObject) {
			break
		}
	}
	return fmt.Errorf("compact: %w", err)
}

// compactOnce takes the cheapest step that keeps the index small to read: tails into a run, runs into one, or all into
// shards when the runs, which every node reads whole, have become a fifth of the index.
func (s *Store) compactOnce(ctx context.Context) error {
	src, err := s.readSource(ctx)
	if err != nil {
		return err
	}
	if len(src.tails) > 0 {
		if err := s.foldTails(ctx, src); err != nil {
			return err
		}
	}
	return s.deleteTails(ctx, src)
}

func (s *Store) foldTails(ctx context.Context, src *source) error {
	runs, shards := src.manifest.indexed()
	for _, e := range src.tails {
		if e != nil {
			runs += int64(len(e.all))
		}
	}
	major := runs >= max(s.o.shardsFrom, shards/5)
	if major || len(src.manifest.Runs) >= maxRuns {
		if err := s.readRuns(ctx, src); err != nil {
			return err
		}
	}
	m := next(src.manifest, src.modified)
	if major {
		if _, err := s.foldAll(ctx, src, m, folding{}); err != nil {
			return err
		}
	} else if err := s.foldRun(ctx, src, m); err != nil {
		return err
	}
	if err := s.swapManifest(ctx, m, src.etag); err != nil {
		return err
	}
	err := s.readManifest(ctx)
	return err
}

// foldRun writes one run of the tails, and of the runs if they were read.
func (s *Store) foldRun(ctx context.Context, src *source, m *manifest) error {
	f := newFold()
	for _, e := range src.runs {
		f.add(e)
	}
	for _, e := range src.tails {
		f.add(e)
	}
	var all []entry
	for i := range f.byShard {
		all = append(all, sorted(f.byShard[i])...)
	}
	p, err := s.writePart(ctx, runDir, f.file(all))
	if err != nil {
		return err
	}
	if src.loaded {
		m.Runs = nil
	}
	m.Runs = append(m.Runs, run{part: p, Sources: src.sources()})
	return nil
}

// folding says what a fold of everything does besides.
type folding struct {
	drop  map[id]bool                // packs whose entries leave the index
	touch func(*fold) map[key]uint32 // uses to take up
	dry   bool
	visit func(f *fold, all []entry) // sees the entries of each shard; several calls at once
}

// foldAll writes the whole index anew, as shards or, if it is small, as one run.
func (s *Store) foldAll(ctx context.Context, src *source, m *manifest, o folding) (*fold, error) {
	f := newFold()
	for _, e := range src.runs {
		f.add(e)
	}
	for _, e := range src.tails {
		f.add(e)
	}
	return f, s.writeAll(ctx, src, m, f, o)
}

// writeAll writes what f and the shards hold, and has m name it.
func (s *Store) writeAll(ctx context.Context, src *source, m *manifest, f *fold, o folding) error {
	var used map[key]uint32
	if o.touch != nil {
		used = o.touch(f)
	}
	_, shards := src.manifest.indexed()
	for i := range f.byShard {
		shards += int64(len(f.byShard[i]))
	}
	small := shards < s.o.shardsFrom
	var mu sync.Mutex
	var rest []entry
	parts := make([]part, shardCount)
	err := s.eachShard(ctx, f, src.manifest, func(i int, all []entry) (err error) {
		all = f.filter(all, m, o.drop, used)
		if o.visit != nil {
			o.visit(f, all)
		}
		if o.dry {
			return nil
		}
		if small {
			mu.Lock()
			defer mu.Unlock()
			rest = append(rest, all...)
			return nil
		}
		if len(all) > 0 {
			parts[i], err = s.writePart(ctx, shardDir, f.file(all))
		}
		return err
	})
	if err != nil || o.dry {
		return err
	}
	hadShards := len(src.manifest.Shards) > 0
	m.Major, m.Folded, m.Runs, m.Shards = m.Major+1, src.sources(), nil, nil
	if !small {
		m.Shards = parts
		return nil
	}
	slices.SortFunc(rest, compareEntries)
	p, err := s.writePart(ctx, runDir, f.file(rest))
	if err != nil {
		return err
	}
	r := run{part: p, Sources: src.sources()}
	if hadShards {
		r.Sources = nil // a node that has read them has not read the shards: all read the run
	}
	m.Runs = []run{r}
	return nil
}

// filter drops what leaves the index, and takes up uses.
func (f *fold) filter(all []entry, m *manifest, drop map[id]bool, used map[key]uint32) []entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := all[:0]
	for i := range all {
		e := &all[i]
		if drop[f.packs[e.pack].id] || f.purged(m, e) {
			continue
		}
		if t, ok := used[e.key]; ok {
			e.used = max(e.used, t)
		}
		out = append(out, *e)
	}
	return latest(out)
}

// latest drops the pointers that a later one has replaced, as nodes do: if the later one were evicted alone, a node that
// starts would take the older one for what was stored last. The entries are sorted by key.
func latest(all []entry) []entry {
	out := all[:0]
	for len(all) > 0 {
		n, last := 0, int64(math.MinInt64)
		for ; n < len(all) && all[n].key == all[0].key; n++ {
			last = max(last, all[n].target.time)
		}
		for i := range n {
			if all[i].key.kind() == kindBlob || all[i].target.time == last {
				out = append(out, all[i])
			}
		}
		all = all[n:]
	}
	return out
}

func (f *fold) purged(m *manifest, e *entry) bool {
	if e.key.kind() != kindAction {
		return false
	}
	for i := range m.Rules {
		if m.Rules[i].match(f.namespaces.all[e.key.namespace()], f.principals.all[e.target.principal], e.target.time) {
			return true
		}
	}
	return false
}
