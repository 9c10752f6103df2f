// Package s3test helps tests that need a bucket: a simulated one in memory, for schedules, faults and clocks of the
// test's own, and versitygw, a real S3 server, as a process.
package s3test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pexpress/pexpress/cache/s3"
)

// pageSize is how many keys a page of a simulated listing holds: few, so that tests turn pages.
const pageSize = 100

// Sim is a bucket in memory that behaves as S3 documents it: strongly consistent, dates in whole seconds, conditions
// checked in one step with the write. It implements s3.Bucket.
type Sim struct {
	// Now is the bucket's clock.
	Now func() time.Time
	// NoConditions makes it one of the services that ignore conditions.
	NoConditions bool

	mu      sync.Mutex
	objects map[string]*object
	uploads map[*upload]bool
	swaps   int
}

type object struct {
	body     []byte
	etag     string
	modified time.Time
}

var _ s3.Bucket = (*Sim)(nil)

// NewSim returns an empty bucket.
func NewSim(now func() time.Time) *Sim {
	return &Sim{Now: now, objects: map[string]*object{}, uploads: map[*upload]bool{}}
}

func (b *Sim) date() time.Time { return b.Now().Truncate(time.Second).UTC() }

func (b *Sim) store(key string, body []byte) s3.Meta {
	b.swaps++
	o := &object{bytes.Clone(body), fmt.Sprintf("%q", fmt.Sprint(b.swaps)), b.date()}
	b.objects[key] = o
	return s3.Meta{ETag: o.etag, Date: b.date()}
}

// Put implements s3.Bucket.
func (b *Sim) Put(ctx context.Context, key string, body []byte) (s3.Meta, error) {
	if err := ctx.Err(); err != nil {
		return s3.Meta{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if o := b.objects[key]; o != nil {
		return s3.Meta{ETag: o.etag, Date: b.date()}, nil
	}
	return b.store(key, body), nil
}

// Swap implements s3.Bucket.
func (b *Sim) Swap(ctx context.Context, key string, body []byte, etag string) (s3.Meta, error) {
	if err := ctx.Err(); err != nil {
		return s3.Meta{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := ""
	if o := b.objects[key]; o != nil {
		old = o.etag
	}
	if old != etag && !b.NoConditions {
		return s3.Meta{Date: b.date()}, fmt.Errorf("swap %s: %w", key, s3.ErrConflict)
	}
	return b.store(key, body), nil
}

// Get implements s3.Bucket.
func (b *Sim) Get(ctx context.Context, key string, o s3.GetOptions) (*s3.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	obj := b.objects[key]
	if obj == nil {
		return nil, fmt.Errorf("get %s: %w", key, s3.ErrNoObject)
	}
	if o.IfNoneMatch == obj.etag {
		return nil, &s3.NotModified{Date: b.date()}
	}
	if o.Offset > 0 && o.Offset >= int64(len(obj.body)) {
		return nil, fmt.Errorf("get %s from %d on: %w", key, o.Offset, s3.ErrShort)
	}
	body := obj.body[o.Offset:]
	if o.Length > 0 {
		body = body[:min(o.Length, int64(len(body)))]
	}
	meta := s3.Meta{ETag: obj.etag, Modified: obj.modified, Date: b.date()}
	return &s3.Object{Meta: meta, Body: io.NopCloser(bytes.NewReader(body))}, nil
}

// List implements s3.Bucket.
func (b *Sim) List(ctx context.Context, prefix, after string) (s3.Page, error) {
	if err := ctx.Err(); err != nil {
		return s3.Page{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := s3.Page{Date: b.date()}
	for _, k := range b.keys(prefix) {
		if k <= after {
			continue
		}
		if p.More = len(p.Objects) == pageSize; p.More {
			break
		}
		o := b.objects[k]
		p.Objects = append(p.Objects, s3.Info{Key: k, Size: int64(len(o.body)), Modified: o.modified})
	}
	return p, nil
}

func (b *Sim) keys(prefix string) []string {
	var ks []string
	for k := range b.objects {
		if strings.HasPrefix(k, prefix) {
			ks = append(ks, k)
		}
	}
	slices.Sort(ks)
	return ks
}

// Delete implements s3.Bucket.
func (b *Sim) Delete(ctx context.Context, keys []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range keys {
		delete(b.objects, k)
	}
	return nil
}

// upload is a multipart upload.
type upload struct {
	b     *Sim
	key   string
	begun time.Time
	parts map[int][]byte
}

// Upload implements s3.Bucket.
func (b *Sim) Upload(ctx context.Context, key string) (s3.Upload, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	u := &upload{b, key, b.date(), map[int][]byte{}}
	b.uploads[u] = true
	return u, nil
}

// Date implements s3.Upload.
func (u *upload) Date() time.Time { return u.begun }

// Part implements s3.Upload.
func (u *upload) Part(ctx context.Context, n int, body []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u.b.mu.Lock()
	defer u.b.mu.Unlock()
	u.parts[n] = bytes.Clone(body)
	return nil
}

// Complete implements s3.Upload. As on S3, the object's date is that of the upload's begin.
func (u *upload) Complete(ctx context.Context) (s3.Meta, error) {
	if err := ctx.Err(); err != nil {
		return s3.Meta{}, err
	}
	u.b.mu.Lock()
	defer u.b.mu.Unlock()
	if !u.b.uploads[u] {
		return s3.Meta{}, fmt.Errorf("complete %s: no such upload", u.key)
	}
	delete(u.b.uploads, u)
	var body []byte
	for _, n := range slices.Sorted(maps.Keys(u.parts)) {
		body = append(body, u.parts[n]...)
	}
	m := u.b.store(u.key, body)
	u.b.objects[u.key].modified = u.begun
	return m, nil
}

// Abort implements s3.Upload.
func (u *upload) Abort(context.Context) error {
	u.b.mu.Lock()
	defer u.b.mu.Unlock()
	delete(u.b.uploads, u)
	return nil
}

// AbortUploads implements s3.Bucket.
func (b *Sim) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for u := range b.uploads {
		if strings.HasPrefix(u.key, prefix) && u.begun.Before(before) {
			delete(b.uploads, u)
			n++
		}
	}
	return n, nil
}

// Keys lists the objects under prefix.
func (b *Sim) Keys(prefix string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys(prefix)
}

// Uploads returns how many uploads were begun and neither completed nor aborted.
func (b *Sim) Uploads() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.uploads)
}

// Alter changes an object behind everyone's back, as failing hardware does. A nil result removes it.
func (b *Sim) Alter(key string, change func([]byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.objects[key]
	if o == nil {
		panic("s3test: there is no " + key)
	}
	if body := change(bytes.Clone(o.body)); body != nil {
		o.body = body
	} else {
		delete(b.objects, key)
	}
}

// Copy returns a bucket of the same content that goes its own way.
func (b *Sim) Copy() *Sim {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := NewSim(b.Now)
	c.swaps = b.swaps
	for k, o := range b.objects {
		twin := *o
		c.objects[k] = &twin
	}
	return c
}
