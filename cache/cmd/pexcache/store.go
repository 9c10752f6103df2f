package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/observe"
	"github.com/pexpress/pexpress/cache/pack"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/tiered"
)

// store is what the configuration says the cache is kept in: a disk, a bucket, or a bucket behind a disk, with or
// without a journal between them. It implements instance.Store.
type store struct {
	log    *slog.Logger
	spool  string
	disk   *pack.Store
	bucket *s3.Store
	back   *tiered.WriteBack
	used   usage

	mu    sync.Mutex
	tiers map[string]*tiered.Cache
}

// open opens the tiers. wrap gets to see requests to S3.
func (s *store) open(ctx context.Context, c *config, wrap func(http.RoundTripper) http.RoundTripper) (err error) {
	s.tiers = map[string]*tiered.Cache{}
	defer func() {
		if err != nil {
			err = errors.Join(unavailableError{err}, s.close())
		}
	}()
	if c.S3 != "" {
		o, err := c.s3Options()
		if err != nil {
			return err
		}
		o.Wrap, o.Log = wrap, s.log
		if s.bucket, err = s3.Open(ctx, o); err != nil {
			return bucketError(err)
		}
		s.used.count = s.bucket.Usage
	}
	if c.Disk == "" {
		return nil
	}
	s.spool = c.spool()
	if err := os.MkdirAll(s.spool, 0o700); err != nil {
		return err
	}
	o := pack.Options{MaxBytes: int64(c.DiskSize)}
	if s.bucket == nil {
		o.Retention = time.Duration(c.Retention) // before a bucket, the bucket keeps the promise
	}
	if s.disk, err = pack.Open(filepath.Join(c.Disk, "tier"), o); err != nil {
		return err
	}
	if c.WriteBack {
		s.back, err = tiered.OpenWriteBack(filepath.Join(c.Disk, "journal"), int64(c.JournalSize), s.tier, s.warn)
	}
	return err
}

// spool is the directory for what is on its way.
func (s *storage) spool() string { return filepath.Join(s.Disk, "spool") }

func (s *store) warn(err error) {
	s.log.Warn("a tier failed; the other one serves", "error", err.Error())
}

// s3Options says where the bucket is.
func (s *storage) s3Options() (s3.Options, error) {
	bucket, prefix, err := bucketOf(s.S3)
	endpoint := s.S3Endpoint
	if endpoint == "" {
		endpoint = os.Getenv("AWS_ENDPOINT_URL")
	}
	return s3.Options{
		Bucket: bucket, Prefix: prefix, Endpoint: endpoint, Region: s.S3Region, PathStyle: s.S3PathStyle,
		SSE: s.S3SSE, SSEKey: s.S3SSEKey, Retention: time.Duration(s.Retention),
	}, err
}

// maxTiers is from how many on those are forgotten that nobody wrote to: clients make up names.
const maxTiers = 1000

// tier returns the namespace's disk and bucket as one. There is one for each namespace, so that all who ask for a blob
// share one request for it.
func (s *store) tier(name string) (*tiered.Cache, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tiers[name]; t != nil {
		return t, nil
	}
	if len(s.tiers) >= maxTiers {
		maps.DeleteFunc(s.tiers, func(name string, _ *tiered.Cache) bool {
			_, written := s.disk.Lookup(name)
			return !written // who still reads there only loses that a request is shared
		})
	}
	t := tiered.New(tiered.LazyNamespace(s.disk, name), s.bucket.Namespace(name), s.spool, s.warn)
	s.tiers[name] = t
	return t, nil
}

// Namespace implements instance.Store.
func (s *store) Namespace(name string) (cache.CAS, cache.ActionCache, error) {
	switch {
	case s.back != nil:
		c, err := s.back.Namespace(name)
		return c, c, err
	case s.bucket == nil:
		c := tiered.LazyNamespace(s.disk, name)
		return c, c, nil
	case s.disk == nil:
		c := s.bucket.Namespace(name)
		return c, c, nil
	}
	c, err := s.tier(name)
	return c, c, err
}

// Usage implements instance.Store.
func (s *store) Usage(ctx context.Context, name string) (int64, error) {
	if s.bucket != nil {
		return s.used.of(ctx, name)
	}
	c, ok := s.disk.Lookup(name)
	if !ok {
		return 0, nil
	}
	return c.Bytes(), nil
}

// usage remembers what all namespaces hold: to count one costs as much as to count them all.
type usage struct {
	count func(context.Context) (map[string]int64, error)
	mu    sync.Mutex
	at    time.Time
	held  map[string]int64
}

// recount is how long a counting holds.
const recount = 20 * time.Second

func (u *usage) of(ctx context.Context, name string) (int64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held == nil || time.Since(u.at) >= recount {
		held, err := u.count(ctx)
		if err != nil {
			return 0, err
		}
		u.held, u.at = held, time.Now()
	}
	return u.held[name], nil
}

// figures returns what the tiers hold and have done.
func (s *store) figures() []observe.Tier {
	var all []observe.Tier
	if s.disk != nil {
		st := s.disk.Stats()
		all = append(all, observe.Tier{
			Name: "disk", Entries: int64(st.Entries), Bytes: st.Bytes, MaxBytes: st.MaxBytes, Hits: st.Hits, Misses: st.Misses,
			Evicted: st.Evicted, Damaged: st.Damaged,
		})
	}
	if s.bucket != nil {
		st := s.bucket.Stats()
		t := bucketFigures(&st)
		if s.back != nil {
			t.Waiting = int64(s.back.Pending())
		}
		all = append(all, t)
	}
	return all
}

func bucketFigures(st *s3.Stats) observe.Tier {
	requests := st.Requests
	if requests == nil {
		requests = map[string]int64{}
	}
	return observe.Tier{
		Name: "s3", Entries: st.Entries, Bytes: st.Bytes, Hits: st.Hits, Misses: st.Looks, BytesRead: st.BytesIn, BytesWritten: st.BytesOut,
		Evicted: st.Evictions, Damaged: st.SetAside, Requests: requests, ViewAge: st.ViewAge.Seconds(), Condemned: int64(st.Condemned),
	}
}

// close closes the tiers, the nearest last: what is on its way to it arrives first.
func (s *store) close() error {
	var errs []error
	if s.back != nil {
		errs = append(errs, s.back.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tiers {
		t.Wait()
	}
	if s.bucket != nil {
		errs = append(errs, s.bucket.Close())
	}
	if s.disk != nil {
		errs = append(errs, s.disk.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the store: %w", err)
	}
	return nil
}
