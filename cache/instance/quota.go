package instance

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/full"
)

// QuotaError is the error for a blob or result that has no room left.
type QuotaError struct {
	Instance    string
	Used, Limit int64
}

// Error implements error.
func (e *QuotaError) Error() string {
	return fmt.Sprintf("instance %q holds %d of the %d bytes that it may: delete with 'pexcache gc' or 'pexcache purge', wait until what is old expires, or have its quota raised",
		e.Instance, e.Used, e.Limit)
}

// Unwrap says that there is no room.
func (e *QuotaError) Unwrap() error { return cache.ErrFull }

// GRPCStatus is the status that clients see.
func (e *QuotaError) GRPCStatus() *status.Status {
	return status.New(codes.ResourceExhausted, e.Error())
}

// recount is how long what this process has counted itself is relied on before the store is asked again. The store's
// answer may be old by less than that, see Store.
const recount = 30 * time.Second

// quota keeps a namespace below a limit. The store says how many bytes it holds, whoever wrote them; to that is added what
// this process has written since, counted as if nothing of it had been there before. Because the store may have counted a
// while before it was asked, what was written in the interval before counts once more. So one node never goes over, and
// several together by at most what each writes between two countings.
type quota struct {
	name  string
	limit int64
	usage func(ctx context.Context, name string) (int64, error)
	now   func() time.Time

	mu     sync.Mutex
	known  bool      // the store has answered
	asked  time.Time // when it was asked last, whatever it said
	asking bool
	held   int64 // what it said
	last   int64 // written in the interval before that
	since  int64 // written after that
	coming int64 // being written
}

func newQuota(name string, limit int64, usage func(context.Context, string) (int64, error)) *quota {
	return &quota{name: name, limit: limit, usage: usage, now: time.Now}
}

// reserve makes room for n bytes, or says that there is none. done says how many were written.
func (q *quota) reserve(ctx context.Context, n int64) (done func(written int64), err error) {
	if err := q.count(ctx); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if used := q.held + q.last + q.since + q.coming; n > 0 && n > q.limit-used {
		return nil, &QuotaError{Instance: q.name, Used: used, Limit: q.limit}
	}
	q.coming += n
	return func(written int64) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.coming -= n
		q.since += written
	}, nil
}

// count asks the store if its last answer is too old. One caller asks; others go on with what is known, unless nothing is.
// While the store gives no answer its last one holds, and all that was written after it counts.
func (q *quota) count(ctx context.Context) error {
	q.mu.Lock()
	if q.known && (q.asking || q.now().Sub(q.asked) < recount) {
		q.mu.Unlock()
		return nil
	}
	q.asking, q.asked = true, q.now()
	first, before := !q.known, q.since
	q.mu.Unlock()

	held, err := q.usage(ctx, q.name)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asking = false
	switch {
	case err != nil && !q.known:
		return fmt.Errorf("how much instance %q holds: %w", q.name, err)
	case err != nil, first && q.known: // another caller was faster: what it counted may be added to already
		return nil
	}
	q.known, q.held, q.last = true, held, before
	q.since -= before
	return nil
}

// limitedCAS is a CAS below a quota.
type limitedCAS struct {
	full.CAS
	q *quota
}

// Put implements cache.CAS.
func (c *limitedCAS) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	return c.q.during(ctx, d.Size(), "put blob "+d.String(), func() error { return c.CAS.Put(ctx, d, r) })
}

// PutMany implements cache.BatchPutter.
func (c *limitedCAS) PutMany(ctx context.Context, blobs []cache.Blob) error {
	var n int64
	for _, b := range blobs {
		n += int64(len(b.Data))
	}
	done, err := c.q.reserve(ctx, n)
	if err != nil {
		return fmt.Errorf("put %d blobs: %w", len(blobs), err)
	}
	err = c.CAS.PutMany(ctx, blobs)
	if err != nil {
		n = c.present(ctx, blobs)
	}
	done(n)
	return err
}

// present returns how many bytes of blobs are there after a PutMany that has failed, which may have stored any of them.
func (c *limitedCAS) present(ctx context.Context, blobs []cache.Blob) (n int64) {
	size := make(map[digest.Digest]int64, len(blobs))
	ds := make([]digest.Digest, len(blobs))
	for i, b := range blobs {
		ds[i], size[b.Digest] = b.Digest, int64(len(b.Data))
	}
	missing, err := c.FindMissing(context.WithoutCancel(ctx), ds)
	if err == nil { // else all of them may be there
		for _, d := range missing {
			delete(size, d)
		}
	}
	for _, s := range size {
		n += s
	}
	return n
}

// during calls write with room for n bytes reserved.
func (q *quota) during(ctx context.Context, n int64, what string, write func() error) error {
	done, err := q.reserve(ctx, n)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err = write(); err != nil {
		n = 0
	}
	done(n)
	return err
}

// limitedActions is an ActionCache below a quota.
type limitedActions struct {
	cache.ActionCache
	q *quota
}

// UpdateActionResult implements cache.ActionCache.
func (a *limitedActions) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	return a.q.during(ctx, int64(proto.Size(result)), "store the ActionResult of "+action.String(), func() error {
		return a.ActionCache.UpdateActionResult(ctx, action, result)
	})
}
