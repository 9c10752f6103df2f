package s3

import (
	"context"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// counted is a Bucket that counts what goes through it.
type counted struct {
	base     Bucket
	mu       sync.Mutex
	requests map[string]int64
	in, out  atomic.Int64
}

func newCounted(b Bucket) *counted { return &counted{base: b, requests: map[string]int64{}} }

// dearRequests are those that AWS charges as writes.
var dearRequests = []string{"PUT", "SWAP", "LIST", "UPLOAD"}

// What 1000 requests cost in us-east-1.
const (
	dearPrice  = 0.005
	cheapPrice = 0.0004
)

// snapshot returns the requests by operation, and their price. DELETE is free.
func (c *counted) snapshot() (map[string]int64, float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := maps.Clone(c.requests)
	dollars := float64(m["GET"]) * cheapPrice / 1000
	for _, op := range dearRequests {
		dollars += float64(m[op]) * dearPrice / 1000
	}
	return m, dollars
}

func (c *counted) add(op string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[op] += n
}

// Put implements Bucket.
func (c *counted) Put(ctx context.Context, key string, body []byte) (Meta, error) {
	c.add("PUT", 1)
	c.out.Add(int64(len(body)))
	return c.base.Put(ctx, key, body)
}

// Get implements Bucket.
func (c *counted) Get(ctx context.Context, key string, o GetOptions) (*Object, error) {
	c.add("GET", 1)
	obj, err := c.base.Get(ctx, key, o)
	if err != nil {
		return nil, err
	}
	obj.Body = &countedBody{obj.Body, &c.in}
	return obj, nil
}

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// List implements Bucket.
func (c *counted) List(ctx context.Context, prefix, after string) (Page, error) {
	c.add("LIST", 1)
	return c.base.List(ctx, prefix, after)
}

// Swap implements Bucket.
func (c *counted) Swap(ctx context.Context, key string, body []byte, etag string) (Meta, error) {
	c.add("SWAP", 1)
	c.out.Add(int64(len(body)))
	return c.base.Swap(ctx, key, body, etag)
}

// Delete implements Bucket.
func (c *counted) Delete(ctx context.Context, keys []string) error {
	c.add("DELETE", 1)
	return c.base.Delete(ctx, keys)
}

// Upload implements Bucket. Beginning and completing an upload are a request each.
func (c *counted) Upload(ctx context.Context, key string) (Upload, error) {
	c.add("UPLOAD", 2)
	u, err := c.base.Upload(ctx, key)
	if err != nil {
		return nil, err
	}
	return &countedUpload{u, c}, nil
}

type countedUpload struct {
	Upload
	c *counted
}

func (u *countedUpload) Part(ctx context.Context, n int, body []byte) error {
	u.c.add("UPLOAD", 1)
	u.c.out.Add(int64(len(body)))
	return u.Upload.Part(ctx, n, body)
}

// AbortUploads implements Bucket.
func (c *counted) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	c.add("LIST", 1)
	return c.base.AbortUploads(ctx, prefix, before)
}

// Stats returns counters and sizes. It makes no request.
func (s *Store) Stats() Stats {
	st := Stats{
		Hits: s.count.hits.Load(), Looks: s.count.looks.Load(), Refreshes: s.count.refreshes.Load(),
		Compactions: s.count.compactions.Load(), Evictions: s.count.evictions.Load(), SetAside: s.count.aside.Load(),
		Tails: int(s.count.tails.Load()), BytesIn: s.bucket.in.Load(), BytesOut: s.bucket.out.Load(),
	}
	st.Requests, st.Dollars = s.bucket.snapshot()
	x := s.index
	x.mu.RLock()
	defer x.mu.RUnlock()
	st.IndexMemory, st.Entries = x.memory()
	st.Packs, st.Condemned, st.ViewAge = len(x.packOf), len(x.dying), x.age(s.now())
	for _, n := range x.packOf {
		if !x.packs[n].condemned {
			st.Bytes += x.packs[n].size
		}
	}
	if x.manifest != nil {
		st.Generation, st.Shards = x.manifest.Generation, len(x.manifest.Shards)
		for i := range x.manifest.Shards {
			if x.shardReady(i) {
				st.ShardsReady++
			}
		}
	}
	return st
}
