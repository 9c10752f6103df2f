// Package fetch brings wheels into a CAS: those that a lock selects, and the two that pexpress pins, pex and uv.
//
// A wheel is hashed while it streams in, and only one that is what the lock says is ever stored. Broken connections are
// resumed where they broke, and large files also after pexpress was ended. Credentials, proxies and certificates are
// those that pip and uv are configured with, netrc included.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/plugin/lock"
)

// ErrRefused is wrapped by the errors about a file that is not what was asked for. Fetching it again will not help.
var ErrRefused = errors.New("refused")

// atOnce is how many wheels are fetched at a time: enough to fill a connection with small ones.
const atOnce = 8

// Options say how to fetch.
type Options struct {
	// StateDir keeps sizes that locks do not say, and what has come of large files.
	StateDir string
	// Progress is called when a fetch of that many files and bytes begins; it returns what is called for every piece that
	// has come, and at the end. Nil for none.
	Progress func(files int, bytes int64) (add func(n int64), done func())
}

// Fetcher fetches wheels into one CAS.
type Fetcher struct {
	cas    cache.CAS
	opts   Options
	config *config
	client func() (*http.Client, error) // made when something is fetched: certificates take their time to read
	// backoff is how long the first pause after a failure is.
	backoff time.Duration
}

// Stats says what a Fetch brought.
type Stats struct {
	Fetched int
	Bytes   int64
}

// New returns a Fetcher. It reads the configuration of pip and uv.
func New(cas cache.CAS, opts Options) (*Fetcher, error) {
	c, err := readConfig()
	if err != nil {
		return nil, err
	}
	if opts.Progress == nil {
		opts.Progress = func(int, int64) (func(int64), func()) { return func(int64) {}, func() {} }
	}
	return &Fetcher{cas, opts, c, sync.OnceValues(c.httpClient), 200 * time.Millisecond}, nil
}

// Resolve returns the wheels' digests. Where the lock gives no size or no sha256, the wheel is fetched once and its
// digest remembered.
func (f *Fetcher) Resolve(ctx context.Context, wheels []lock.Wheel) ([]digest.Digest, error) {
	digests := make([]digest.Digest, len(wheels))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, w := range wheels {
		if w.SHA256 != "" && w.Size > 0 {
			d, err := digest.New(w.SHA256, w.Size)
			if err != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrRefused, w.Filename, err)
			}
			digests[i] = d
			continue
		}
		g.Go(func() (err error) {
			digests[i], err = f.complete(ctx, w)
			return err
		})
	}
	return digests, g.Wait()
}

// Fetch brings those of the wheels into the CAS that it lacks.
func (f *Fetcher) Fetch(ctx context.Context, wheels []lock.Wheel, digests []digest.Digest) (Stats, error) {
	missing, err := f.cas.FindMissing(ctx, digests)
	if err != nil || len(missing) == 0 {
		return Stats{}, err
	}
	byDigest := map[digest.Digest]lock.Wheel{}
	for i, d := range digests {
		byDigest[d] = wheels[i]
	}
	total := int64(0)
	for _, d := range missing {
		total += d.Size()
	}
	add, done := f.opts.Progress(len(missing), total)
	defer done()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	var fetched atomic.Int64
	for _, d := range missing {
		g.Go(func() error {
			if err := f.fetchOne(ctx, byDigest[d], d, add); err != nil {
				return err
			}
			fetched.Add(1)
			return nil
		})
	}
	err = g.Wait()
	return Stats{int(fetched.Load()), total}, err
}

// fetchOne streams one wheel into the CAS, which checks it.
func (f *Fetcher) fetchOne(ctx context.Context, w lock.Wheel, d digest.Digest, add func(int64)) error {
	for try := 0; ; try++ {
		s, err := f.open(ctx, w, d.Size())
		if err != nil {
			return err
		}
		s.add = add
		err = errors.Join(f.cas.Put(ctx, d, s), s.Close())
		if err == nil {
			s.discard()
			return nil
		}
		if !errors.Is(err, digest.ErrMismatch) {
			return fmt.Errorf("fetch %s: %w", w.Filename, err)
		}
		s.discard()
		if s.resumed && try == 0 {
			add(-s.offset)
			continue // what was kept of an earlier try may be what is wrong
		}
		return fmt.Errorf("%w: %s is not what the lock says (size %d, sha256 %s): the lock is wrong, or the file was changed: %w",
			ErrRefused, w.Filename, d.Size(), d.Hash(), digest.ErrMismatch) // what it is is not told: see spool
	}
}

// open returns the wheel's bytes.
func (f *Fetcher) open(ctx context.Context, w lock.Wheel, size int64) (*stream, error) {
	if path := localPath(w); path != "" {
		file, err := durable.Open(path)
		if err == nil {
			return &stream{ctx: ctx, body: file, name: w.Filename}, nil
		}
		if w.URL == "" || w.Path == "" {
			return nil, fmt.Errorf("%w: %s: %w", ErrRefused, w.Filename, err)
		}
	}
	s := &stream{ctx: ctx, fetcher: f, url: w.URL, name: w.Filename}
	if size >= keepFrom && w.SHA256 != "" {
		s.part = filepath.Join(f.opts.StateDir, "downloads", w.SHA256+".part")
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}
