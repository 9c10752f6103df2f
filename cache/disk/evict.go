package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// entry is a file of the store, as a scan found it.
type entry struct {
	name  name
	size  int64
	mtime time.Time
}

// scan lists all blobs and ActionResults.
func (s *Store) scan(ctx context.Context) ([]entry, error) {
	type shard struct {
		area area
		dir  string
		all  []entry
	}
	var shards []*shard
	for _, a := range areas {
		dirs, err := os.ReadDir(s.path(string(a)))
		if err != nil {
			return nil, err
		}
		for _, dir := range dirs {
			if dir.IsDir() {
				shards = append(shards, &shard{area: a, dir: s.path(string(a), dir.Name())})
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for _, sh := range shards {
		g.Go(func() (err error) {
			sh.all, err = scanDir(ctx, sh.area, sh.dir)
			return err
		})
	}
	err := g.Wait()
	var all []entry
	for _, sh := range shards {
		all = append(all, sh.all...)
	}
	return all, err
}

func scanDir(ctx context.Context, a area, dir string) ([]entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := make([]entry, 0, len(files))
	for _, f := range files {
		n, ok := parseName(a, f.Name())
		if !ok {
			continue
		}
		fi, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since, which a scan without the ledger's lock may see
		}
		if err != nil {
			return nil, err
		}
		all = append(all, entry{n, fi.Size(), fi.ModTime()})
	}
	return all, nil
}

// evictIfFull evicts when the store exceeds its limit. It goes well below it, so that the scan that this needs is paid
// for by many Puts. The files that are just being stored are spared.
func (l *ledger) evictIfFull(ctx context.Context, spare []staged) error {
	limit := l.store.maxBytes
	if limit <= 0 || l.Bytes <= max(limit, l.NextEviction) {
		return nil
	}
	kept := make(map[name]bool, len(spare))
	for _, f := range spare {
		kept[f.name] = true
	}
	slack := limit / 10
	if _, err := l.evict(ctx, limit-slack, kept); err != nil {
		return fmt.Errorf("evict from a full cache: %w", err)
	}
	if l.Bytes > limit {
		l.NextEviction = l.Bytes + slack
	}
	return nil
}

// evict removes what was used longest ago until at most limit bytes are left. It counts everything anew on the way.
func (l *ledger) evict(ctx context.Context, limit int64, spare map[name]bool) (Collected, error) {
	pinned, err := l.store.pinned()
	if err != nil {
		return Collected{}, err
	}
	entries, err := l.store.scan(ctx)
	if err != nil {
		return Collected{}, err
	}
	l.count(entries)
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(a.mtime.Compare(b.mtime), a.name.digest.Compare(b.name.digest))
	})
	var c Collected
	for _, e := range entries {
		if l.Bytes <= limit {
			break
		}
		if pinned[e.name.digest] || spare[e.name] {
			continue
		}
		removed, err := l.store.remove(e)
		if err != nil {
			return c, err
		}
		if removed {
			l.Bytes -= e.size
			l.Files--
			c.Deleted++
			c.DeletedBytes += e.size
		}
	}
	c.LeftBytes = l.Bytes
	return c, nil
}

// remove deletes a file unless it was used since the scan. One that a person deleted meanwhile counts as deleted.
func (s *Store) remove(e entry) (bool, error) {
	path := e.name.path(s)
	fi, err := os.Lstat(path)
	if err == nil {
		if !fi.ModTime().Equal(e.mtime) {
			return false, nil
		}
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, nil
}

// Collected says what GC did.
type Collected struct {
	Deleted      int64 `json:"deleted"`
	DeletedBytes int64 `json:"deleted_bytes"`
	LeftBytes    int64 `json:"left_bytes"`
}

// quarantineTime is how long corrupt copies are kept for someone to look at.
const quarantineTime = 7 * 24 * time.Hour

// GC deletes what was used longest ago until at most maxBytes are left, 0 for all that is not pinned. It also deletes
// what killed processes left half written, and corrupt copies that were set aside more than a week ago.
func (s *Store) GC(ctx context.Context, maxBytes int64) (Collected, error) {
	var c Collected
	err := s.withLedger(ctx, func(l *ledger) (err error) {
		c, err = l.evict(ctx, maxBytes, nil)
		return err
	})
	if err == nil {
		err = errors.Join(s.sweep(), s.clearQuarantine(time.Now().Add(-quarantineTime)))
	}
	if err != nil {
		return c, fmt.Errorf("collect garbage in %s: %w", s.dir, s.explain(err))
	}
	return c, nil
}

func (s *Store) clearQuarantine(before time.Time) error {
	files, err := os.ReadDir(s.path("quarantine"))
	if err != nil {
		return err
	}
	for _, f := range files {
		path := s.path("quarantine", f.Name())
		fi, err := os.Lstat(path)
		if err == nil && fi.ModTime().Before(before) {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
