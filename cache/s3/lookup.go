package s3

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache/digest"
)

// question is a lookup in the index, asked anew until the index has what it needs.
type question struct {
	// ask looks and notes its answer. It returns the shards without which it cannot tell, and whether anything is missing.
	// The read lock is held.
	ask func(x *index) (shards []int, missing bool)
	// promise says that what is found is reported as present, so that the view must be fresh when ask looks.
	promise bool
	// local says that what is not in memory counts as missing.
	local bool
}

// answer asks q until it is settled. Only what is still missing after a look at the bucket that began after the call is
// missing; any failure on the way is an error and no miss.
func (s *Store) answer(ctx context.Context, q question) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	looked := q.local
	for range 16 {
		if err := s.freshen(ctx, q.promise); err != nil {
			return err
		}
		s.index.mu.RLock()
		if q.promise && s.index.age(s.now()) >= Freshness {
			s.index.mu.RUnlock()
			continue
		}
		shards, missing := q.ask(s.index)
		s.index.mu.RUnlock()
		switch {
		case len(shards) > 0:
			if err := s.loadShards(ctx, shards); err != nil {
				return err
			}
		case !missing || looked:
			if looked && !q.local {
				s.count.looks.Add(1)
			} else {
				s.count.hits.Add(1)
			}
			return nil
		default:
			if err := s.look(ctx); err != nil {
				return err
			}
			looked = true
		}
	}
	return fmt.Errorf("%w: the manifest was replaced too often meanwhile", ErrStale)
}

// freshen renews the view if it is too old to promise anything from.
func (s *Store) freshen(ctx context.Context, promise bool) error {
	s.index.mu.RLock()
	fresh := s.index.manifest != nil && (!promise || s.index.age(s.now()) < Freshness)
	s.index.mu.RUnlock()
	if fresh {
		return nil
	}
	err := s.validating.do(ctx, func() error {
		err := s.readManifest(s.ctx)
		return err
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	return err
}

// loadShards reads shards. Their loads are shared.
func (s *Store) loadShards(ctx context.Context, shards []int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, i := range shards {
		g.Go(func() error {
			select {
			case r := <-s.loading.DoChan(strconv.Itoa(i), func() (any, error) { return nil, s.loadShard(s.ctx, i) }):
				return r.Err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	return g.Wait()
}

func (s *Store) loadShard(ctx context.Context, i int) error {
	var err error
	for range tries {
		part, ready := s.index.shard(i)
		if ready {
			return nil
		}
		var e *entries
		if e, err = s.fetchEntries(ctx, shardDir, part.ID); err == nil {
			s.index.addShard(i, part.ID, e)
			return nil
		}
		if !errors.Is(err, ErrNoObject) {
			return indexError(err)
		}
		if err := s.readManifest(ctx); err != nil { // folded since
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrIndexLost, err)
}

func (x *index) shard(i int) (part, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.shardReady(i) {
		return part{}, true
	}
	return x.manifest.Shards[i], false
}

// shardSet collects the shards that a question needs.
type shardSet struct {
	in  [shardCount]bool
	all []int
}

func (s *shardSet) add(d digest.Digest) {
	sum := d.Sum()
	if i := int(sum[0]); !s.in[i] {
		s.in[i] = true
		s.all = append(s.all, i)
	}
}

// locate finds where a blob can be read, on this node or after a look at the bucket.
func (s *Store) locate(ctx context.Context, namespace string, d digest.Digest) (f found, ok bool, err error) {
	err = s.answer(ctx, question{ask: func(x *index) ([]int, bool) {
		p, st := x.blob(namespace, d)
		switch {
		case p != nil && x.readable(p):
			f, ok = found{x.packs[p.pack].id, p.offset}, true
			s.touchPlace(x, p, namespace, kindBlob, d)
		case st == unknown, x.missing(int(d.Sum()[0])) == unknown:
			return []int{int(d.Sum()[0])}, true
		}
		return nil, !ok
	}})
	return f, ok, err
}
