package s3_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/pexpress/pexpress/cache/s3"
)

func (p *process) isDead() bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.dead
}

// latency is mostly short, and sometimes so long that everything else overtakes.
func (w *world) latency(r *rand.Rand) time.Duration {
	if w.isCalm() {
		return between(r, time.Millisecond, 2*time.Millisecond)
	}
	switch n := r.IntN(1000); {
	case n < 900:
		return between(r, time.Millisecond, 40*time.Millisecond)
	case n < 980:
		return between(r, 100*time.Millisecond, 5*time.Second)
	case n < 998:
		return between(r, 5*time.Second, 3*time.Minute)
	default:
		return between(r, 20*time.Minute, 4*time.Hour)
	}
}

// do lets one request happen somewhere between its call and its return.
func (p *process) do(ctx context.Context, write bool, what string, apply func() error) error {
	p.w.mu.Lock()
	p.w.tally.Requests++
	p.w.mu.Unlock()
	r := p.w.chance(p.name + what)
	if strings.HasPrefix(what, "put root/") {
		time.Sleep(between(r, 0, time.Second)) // for gc to come in between
	}
	if err := p.pass(ctx, r); err != nil {
		if write && r.IntN(2) == 0 {
			p.later(r, what, apply)
		}
		return err
	}
	fault := 1000
	if !p.w.isCalm() {
		fault = r.IntN(1000)
	}
	if !write {
		fault *= 20 // clients try reads again by themselves
	}
	switch {
	case fault < 20:
		p.faulted()
		return errInjected
	case fault < 30 && write: // the answer never comes, and the request is done when nobody waits for it any more
		p.faulted()
		p.later(r, what, apply)
		time.Sleep(30 * time.Second)
		return errInjected
	}
	if fault < 1000 && strings.HasPrefix(what, "put tail/") && r.IntN(30) == 0 { // the machine stands still before it sends it
		p.w.mu.Lock()
		p.w.tally.Late++
		p.w.mu.Unlock()
		p.afterwards(between(r, p.w.limit/2, 4*p.w.limit), what, apply)
		return errInjected
	}
	err := apply()
	p.w.note("%s %s: %v", p.name, what, err)
	if err2 := p.pass(ctx, r); err2 != nil {
		return err2
	}
	if fault < 50 {
		p.faulted()
		return errInjected
	}
	return err
}

func (p *process) faulted() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.tally.Faults++
}

// later does a request after its caller has gone, as long after as S3 takes requests for.
func (p *process) later(r *rand.Rand, what string, apply func() error) {
	p.w.mu.Lock()
	p.w.tally.Zombies++
	p.w.mu.Unlock()
	p.afterwards(between(r, 0, 14*time.Minute), what, apply)
}

func (p *process) afterwards(d time.Duration, what string, apply func() error) {
	go func() {
		time.Sleep(d)
		err := apply()
		p.w.note("%s late %s: %v", p.name, what, err)
	}()
}

func (p *process) pass(ctx context.Context, r *rand.Rand) error {
	t := time.NewTimer(p.w.latency(r))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.isDead() {
		return errKilled
	}
	return nil
}

// Put implements s3.Bucket.
func (p *process) Put(ctx context.Context, key string, body []byte) (s3.Meta, error) {
	var got s3.Meta
	err := p.do(ctx, true, "put "+key, func() (err error) {
		got, err = p.base.Put(context.Background(), key, body)
		return err
	})
	if err != nil { // it may still be done, and write got
		return s3.Meta{}, err
	}
	return got, nil
}

// Get implements s3.Bucket.
func (p *process) Get(ctx context.Context, key string, o s3.GetOptions) (obj *s3.Object, err error) {
	err = p.do(ctx, false, "get "+key, func() (err error) {
		obj, err = p.base.Get(context.Background(), key, o)
		return err
	})
	return obj, err
}

// List implements s3.Bucket.
func (p *process) List(ctx context.Context, prefix, after string) (page s3.Page, err error) {
	err = p.do(ctx, false, "list "+prefix, func() (err error) {
		page, err = p.base.List(context.Background(), prefix, after)
		return err
	})
	return page, err
}

// Swap implements s3.Bucket.
func (p *process) Swap(ctx context.Context, key string, body []byte, etag string) (s3.Meta, error) {
	var got s3.Meta
	err := p.do(ctx, true, "swap "+key, func() (err error) {
		got, err = p.base.Swap(context.Background(), key, body, etag)
		return err
	})
	if err != nil { // it may still be done, and write got
		return s3.Meta{}, err
	}
	return got, nil
}

// Delete implements s3.Bucket.
func (p *process) Delete(ctx context.Context, keys []string) error {
	return p.do(ctx, true, "delete", func() error {
		for _, k := range keys {
			p.w.note("delete %s", k)
		}
		return p.base.Delete(context.Background(), keys)
	})
}

// Upload implements s3.Bucket. The model's blobs have no parts.
func (p *process) Upload(ctx context.Context, key string) (s3.Upload, error) {
	return p.base.Upload(ctx, key)
}

// AbortUploads implements s3.Bucket.
func (p *process) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	return p.base.AbortUploads(ctx, prefix, before)
}
