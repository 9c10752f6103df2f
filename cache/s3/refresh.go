package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// atOnce bounds the requests that one piece of work has under way.
const atOnce = 16

// tries is how often an object is read that comes back damaged: on the way, most likely.
const tries = 3

// tail is a tail as it was listed.
type tail struct {
	id       id
	modified time.Time
}

// look is the list path: it reads what other nodes have committed. The LIST comes first and the manifest last, since
// tails are deleted only after a manifest has taken up what they say: whatever was acknowledged before the look began is
// in one or the other.
func (s *Store) look(ctx context.Context) error {
	return s.looking.do(ctx, func() error { return s.lookNow(s.ctx) })
}

func (s *Store) lookNow(ctx context.Context) error {
	s.count.refreshes.Add(1)
	for range tries {
		if err := s.ensureManifest(ctx); err != nil {
			return err
		}
		n, epoch := s.index.beginLook()
		listed, err := s.listTails(ctx)
		if err != nil {
			return err
		}
		if err := s.readTails(ctx, listed, epoch); err != nil {
			return err
		}
		if err := s.readManifest(ctx); err != nil {
			return err
		}
		// The tails that were just read may be of what was forgotten, and of what was condemned there may be copies with
		// tails that were not listed yet.
		if s.index.changedSince(epoch) {
			continue
		}
		s.index.prune(n, listed)
		s.count.tails.Store(int64(len(listed)))
		s.wakeCompaction(len(listed))
		return nil
	}
	return fmt.Errorf("%w: the manifest was replaced too often meanwhile", ErrStale)
}

// ensureManifest reads the manifest before the first LIST. What a manifest condemns must be known before tails are
// taken up: a tail that was read, and then folded and deleted together with its pack, would otherwise look alive.
func (s *Store) ensureManifest(ctx context.Context) error {
	if s.index.hasManifest() {
		return nil
	}
	return s.readManifest(ctx)
}

func (x *index) hasManifest() bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.manifest != nil
}

// listTails returns the tails that count.
func (s *Store) listTails(ctx context.Context) ([]tail, error) {
	var out []tail
	err := s.list(ctx, tailDir, func(o Info, _ time.Time) {
		if i, ok := idOf(tailDir, o.Key); ok {
			out = append(out, tail{i, o.Modified})
		}
	})
	return out, err
}

// list calls each for every object under dir, with S3's clock when it was listed.
func (s *Store) list(ctx context.Context, dir string, each func(Info, time.Time)) error {
	for after := ""; ; {
		p, err := s.bucket.List(ctx, dir, after)
		if err != nil {
			return fmt.Errorf("list %s: %w", dir, err)
		}
		for _, o := range p.Objects {
			each(o, p.Date)
			after = o.Key
		}
		if !p.More || len(p.Objects) == 0 {
			return nil
		}
	}
}

// readTails takes up the tails that this node has not read. One that is gone was folded: the manifest has it.
func (s *Store) readTails(ctx context.Context, listed []tail, epoch uint64) error {
	unread := s.index.unread(listed)
	if len(unread) == 0 {
		return nil
	}
	got, err := s.fetchTails(ctx, unread)
	s.index.addTails(got, epoch) // what could be read need not be read again
	return err
}

// fetchTails reads tails. A void one is nil in the result, one that is gone is not in it.
func (s *Store) fetchTails(ctx context.Context, tails []tail) (map[id]*entries, error) {
	var mu sync.Mutex
	got := make(map[id]*entries, len(tails))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, t := range tails {
		g.Go(func() error {
			e, err := s.fetchTail(ctx, t)
			if errors.Is(err, ErrNoObject) {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			got[t.id] = e
			return nil
		})
	}
	return got, g.Wait()
}

// fetchTail reads a tail. One that was written long after its pack is void, for everyone alike: by then, the pack may
// have been swept as one that was never committed.
func (s *Store) fetchTail(ctx context.Context, t tail) (*entries, error) {
	e, err := s.fetchEntries(ctx, tailDir, t.id)
	if errors.Is(err, errFormat) {
		e, err = s.packEntries(ctx, t.id) // the pack says it all once more
	}
	if err != nil {
		return nil, err
	}
	for _, p := range e.packs {
		if t.modified.Sub(time.Unix(p.date, 0)) > s.o.commitLimit {
			return nil, nil
		}
	}
	return e, nil
}

func (s *Store) fetchEntries(ctx context.Context, dir string, i id) (e *entries, err error) {
	_, err = s.fetch(ctx, dir+i.String(), "", func(b []byte, _ Meta) error {
		e, err = decodeEntries(b)
		return err
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// fetch reads a whole object into memory and hands it to use, once more if the connection broke or use finds it damaged.
func (s *Store) fetch(ctx context.Context, key, etag string, use func([]byte, Meta) error) (Meta, error) {
	var err error
	for range tries {
		var o *Object
		if o, err = s.bucket.Get(ctx, key, GetOptions{IfNoneMatch: etag}); err != nil {
			return Meta{}, fmt.Errorf("get %s: %w", key, err)
		}
		var b bytes.Buffer
		_, err = b.ReadFrom(o.Body)
		o.Body.Close()
		if err == nil {
			err = use(b.Bytes(), o.Meta)
		}
		if err == nil {
			return o.Meta, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return Meta{}, fmt.Errorf("get %s: %w", key, err)
}

// readManifest makes the manifest in the bucket the view.
func (s *Store) readManifest(ctx context.Context) (err error) {
	select {
	case s.manifestLock <- struct{}{}:
		defer func() { <-s.manifestLock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for range tries {
		var u *update
		if u, err = s.fetchManifest(ctx); u == nil || err != nil {
			return indexError(err)
		}
		u.runs, err = s.fetchRuns(ctx, s.index.wanted(u.manifest))
		if errors.Is(err, ErrNoObject) {
			continue // folded since: there is a newer manifest
		}
		if err != nil {
			return indexError(err)
		}
		s.index.apply(u)
		return nil
	}
	return fmt.Errorf("%w: %w", ErrIndexLost, err)
}

// indexError says what helps against a part of the index that is damaged.
func indexError(err error) error {
	if errors.Is(err, errFormat) {
		return fmt.Errorf("%w: %w", ErrIndexLost, err)
	}
	return err
}

// fetchManifest returns nil if the manifest is the one in view.
func (s *Store) fetchManifest(ctx context.Context) (*update, error) {
	s.index.mu.RLock()
	etag, known := s.index.etag, s.index.manifest != nil
	s.index.mu.RUnlock()
	u := &update{asked: s.now()}
	meta, err := s.fetch(ctx, manifestKey, etag, func(b []byte, _ Meta) (err error) {
		u.manifest, err = decodeManifest(b)
		return err
	})
	var same *NotModified
	switch {
	case errors.As(err, &same):
		s.index.renew(u.asked, same.Date)
		return nil, nil
	case errors.Is(err, ErrNoObject) && known:
		return nil, fmt.Errorf("%w: the manifest is gone: %w", ErrIndexLost, err)
	case err != nil:
		return nil, err
	}
	u.meta = meta
	return u, nil
}

func (s *Store) fetchRuns(ctx context.Context, want []id) (map[id]*entries, error) {
	var mu sync.Mutex
	got := make(map[id]*entries, len(want))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, i := range want {
		g.Go(func() error {
			e, err := s.fetchEntries(ctx, runDir, i)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			got[i] = e
			return nil
		})
	}
	return got, g.Wait()
}
