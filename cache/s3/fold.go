package s3

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// largeIndex is the number of entries from which an index is cut into shards.
	largeIndex = 64 << 10
	// maxRuns is how many runs there may be before they are folded into one.
	maxRuns = 8
	// foldsAtOnce bounds the shards in memory while all are written.
	foldsAtOnce = 4
)

// source is the state of the log that a fold starts from. It is read from the bucket, not from the memory of the node: what a node
// believes of a record, that it is lost or damaged, is its own business.
type source struct {
	manifest *manifest
	etag     string
	modified time.Time
	tails    map[id]*entries // nil are the void ones
	stale    []id            // tails that the manifest has taken up already
	runs     map[id]*entries
	loaded   bool // runs are read
}

// readSource reads the manifest, then the tails. A swap that is conditional on this manifest's ETag then takes up all
// that the tails say. A tail that is gone in between was folded by a manifest that makes this swap fail.
func (s *Store) readSource(ctx context.Context) (*source, error) {
	if err := s.readManifest(ctx); err != nil {
		return nil, err
	}
	src := new(source)
	src.manifest, src.etag, src.modified = s.index.snapshot()
	listed, err := s.listTails(ctx)
	if err != nil {
		return nil, err
	}
	s.count.tails.Store(int64(len(listed)))
	folded := src.manifest.folded()
	var fresh []tail
	for _, t := range listed {
		if folded[t.id] {
			src.stale = append(src.stale, t.id)
		} else {
			fresh = append(fresh, t)
		}
	}
	if src.tails, err = s.fetchTails(ctx, fresh); err != nil {
		return nil, err
	}
	return src, nil
}

// folded returns the tails whose entries are in the runs and shards of m, as far as it still lists them.
func (m *manifest) folded() map[id]bool {
	set := map[id]bool{}
	for _, i := range m.Folded {
		set[i] = true
	}
	for _, r := range m.Runs {
		for _, i := range r.Sources {
			set[i] = true
		}
	}
	return set
}

// readRuns reads the runs as well.
func (s *Store) readRuns(ctx context.Context, src *source) (err error) {
	want := make([]id, len(src.manifest.Runs))
	for i := range want {
		want[i] = src.manifest.Runs[i].ID
	}
	src.runs, err = s.fetchRuns(ctx, want)
	src.loaded = true
	return err
}

// sources returns the ids of what is folded.
func (src *source) sources() []id {
	var all []id
	for i := range src.tails {
		all = append(all, i)
	}
	for i := range src.runs {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b id) int { return bytes.Compare(a[:], b[:]) })
	return all
}

// deleteTails removes tails that the manifest has taken up.
func (s *Store) deleteTails(ctx context.Context, src *source) error {
	var keys []string
	for i := range src.tails {
		keys = append(keys, tailDir+i.String())
	}
	for _, i := range src.stale {
		keys = append(keys, tailDir+i.String())
	}
	if len(keys) == 0 {
		return nil
	}
	if err := s.bucket.Delete(ctx, keys); err != nil {
		return fmt.Errorf("delete %d folded tails: %w", len(keys), err)
	}
	s.count.tails.Store(0)
	return nil
}

// fold is entries of several files with numbers in common.
type fold struct {
	mu         sync.Mutex
	packs      []packRef
	packOf     map[id]uint32
	namespaces names
	principals names
	byShard    [shardCount][]entry
}

func newFold() *fold {
	return &fold{packOf: map[id]uint32{}, namespaces: names{of: map[string]uint32{}}, principals: names{of: map[string]uint32{}}}
}

// renumber gives e the fold's numbers.
func (f *fold) renumber(e *entries) {
	f.mu.Lock()
	packs := make([]uint32, len(e.packs))
	for i, p := range e.packs {
		n, ok := f.packOf[p.id]
		if !ok {
			n = uint32(len(f.packs))
			f.packs = append(f.packs, p)
			f.packOf[p.id] = n
		}
		packs[i] = n
	}
	spaces, principals := f.namespaces.numbers(e.namespaces), f.principals.numbers(e.principals)
	f.mu.Unlock()
	for i := range e.all {
		en := &e.all[i]
		en.key.meta = spaces[en.key.namespace()]<<8 | en.key.meta&0xff
		en.pack = packs[en.pack]
		if en.key.kind() == kindAction {
			en.target.principal = principals[en.target.principal]
		}
	}
}

func (n *names) numbers(s []string) []uint32 {
	out := make([]uint32, len(s))
	for i := range s {
		out[i] = n.number(s[i])
	}
	return out
}

// add takes up a tail or run.
func (f *fold) add(e *entries) {
	if e == nil {
		return
	}
	f.renumber(e)
	for i := range e.all {
		n := e.all[i].key.shard()
		f.byShard[n] = append(f.byShard[n], e.all[i])
	}
}

// eachShard calls visit for all entries, shard by shard, several at once: those of the shards of m and those added. The
// entries are sorted by key, without doubles, and visit may change them.
func (s *Store) eachShard(ctx context.Context, f *fold, m *manifest, visit func(i int, all []entry) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(foldsAtOnce)
	for i := range shardCount {
		g.Go(func() error {
			all := f.byShard[i]
			if len(m.Shards) > 0 && m.Shards[i].Entries > 0 {
				e, err := s.fetchEntries(ctx, shardDir, m.Shards[i].ID)
				if err != nil {
					return fmt.Errorf("shard %d: %w", i, err)
				}
				f.renumber(e)
				all = append(e.all, all...)
			}
			return visit(i, sorted(all))
		})
	}
	return g.Wait()
}

// sorted orders entries, and drops those that say the same of the same record, with the latest use kept.
func sorted(all []entry) []entry {
	slices.SortFunc(all, compareEntries)
	out := all[:0]
	for i := range all {
		if n := len(out); n > 0 && compareEntries(out[n-1], all[i]) == 0 {
			out[n-1].used = max(out[n-1].used, all[i].used)
			continue
		}
		out = append(out, all[i])
	}
	return out
}

func compareEntries(a, b entry) int {
	return cmp.Or(compareKeys(&a.key, &b.key), cmp.Compare(a.pack, b.pack), cmp.Compare(a.offset, b.offset))
}

func compareKeys(a, b *key) int {
	return cmp.Or(bytes.Compare(a.hash[:], b.hash[:]), cmp.Compare(a.meta, b.meta), cmp.Compare(a.blobSize(), b.blobSize()))
}

// file returns all as a file of its own, with tables of what it uses.
func (f *fold) file(all []entry) *entries {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := &entries{all: all}
	packs, spaces, principals := map[uint32]uint32{}, map[uint32]uint32{}, map[uint32]uint32{}
	for i := range all {
		en := &all[i]
		en.pack = local(packs, en.pack, func(n uint32) { e.packs = append(e.packs, f.packs[n]) })
		space := local(spaces, en.key.namespace(), func(n uint32) { e.namespaces = append(e.namespaces, f.namespaces.all[n]) })
		en.key.meta = space<<8 | en.key.meta&0xff
		if en.key.kind() == kindAction {
			en.target.principal = local(principals, en.target.principal, func(n uint32) {
				e.principals = append(e.principals, f.principals.all[n])
			})
		}
	}
	return e
}

// local numbers what it sees first by first.
func local(of map[uint32]uint32, n uint32, fresh func(uint32)) uint32 {
	l, ok := of[n]
	if !ok {
		l = uint32(len(of))
		of[n] = l
		fresh(n)
	}
	return l
}

// writePart writes a file of entries.
func (s *Store) writePart(ctx context.Context, dir string, e *entries) (part, error) {
	p := part{ID: newID(), Entries: int64(len(e.all))}
	b := e.encode()
	p.Bytes = int64(len(b))
	if _, err := s.bucket.Put(ctx, dir+p.ID.String(), b); err != nil {
		return part{}, fmt.Errorf("write %s%s: %w", dir, p.ID, err)
	}
	return p, nil
}
