package s3

import (
	"bytes"
	"context"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// putAll stores blobs that have packs of their own.
func (c *Cache) putAll(ctx context.Context, blobs []cache.Blob) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(partsAtOnce)
	for _, b := range blobs {
		g.Go(func() error { return c.Put(ctx, b.Digest, bytes.NewReader(b.Data)) })
	}
	return g.Wait()
}

// GetAction returns the digest of the result message that was stored last for the action. The message is in the CAS of
// the namespace, and is promised to stay readable as if FindMissing had reported it. A result that another node replaced
// is seen within a third of Freshness.
func (c *Cache) GetAction(ctx context.Context, act digest.Digest) (digest.Digest, error) {
	if err := checkDigest(act); err != nil {
		return digest.Digest{}, err
	}
	var result digest.Digest
	var ok bool
	err := c.s.answer(ctx, question{promise: true, ask: func(x *index) ([]int, bool) {
		ok = false
		a, st := x.action(c.name, act)
		if st != live {
			return x.needs(st, act), true
		}
		result = a.result()
		if !result.IsEmpty() {
			p, st := x.blob(c.name, result)
			if st != live {
				return x.needs(st, result), true
			}
			c.s.touchPlace(x, p, c.name, kindBlob, result)
		}
		ok = true
		c.s.touchPlace(x, &a.place, c.name, kindAction, act)
		return nil, false
	}})
	if err != nil {
		return digest.Digest{}, fmt.Errorf("find the result of action %s: %w", act, err)
	}
	if !ok {
		return digest.Digest{}, cache.NotFound("result of action", act)
	}
	return result, nil
}

// needs returns the shard that d may be in, if that is not loaded.
func (x *index) needs(st state, d digest.Digest) []int {
	i := int(d.Sum()[0])
	if st == unknown || x.missing(i) == unknown {
		return []int{i}
	}
	return nil
}

// PutAction stores the digest of the action's result message, which must be in the CAS of the namespace before: if it is
// not, the error wraps cache.ErrNotFound. The writer is cache.PrincipalOf(ctx).
func (c *Cache) PutAction(ctx context.Context, act, result digest.Digest) error {
	if err := c.writable(ctx, act); err != nil {
		return fmt.Errorf("put the result of an action: %w", err)
	}
	for range tries {
		missing, err := c.FindMissing(ctx, []digest.Digest{result})
		if err != nil {
			return fmt.Errorf("put the result of action %s: %w", act, err)
		}
		if len(missing) > 0 {
			return fmt.Errorf("put the result of action %s: %w", act, cache.NotFound("its message", result))
		}
		found := c.s.now()
		it, err := c.pointer(ctx, act, result)
		if err == nil {
			err = c.s.commits.commit(ctx, [][]item{{it}})
		}
		if err != nil {
			return fmt.Errorf("put the result of action %s: %w", act, err)
		}
		if since(c.s.now(), found) < maxAnswer {
			return nil
		}
	}
	return fmt.Errorf("put the result of action %s: %w: the bucket is too slow", act, ErrStale)
}

// pointer makes an action's record. Its time is later than that of all it replaces, also by a clock that is behind.
func (c *Cache) pointer(ctx context.Context, act, result digest.Digest) (item, error) {
	p := &pointer{result: result, time: c.s.tick(), principal: cache.PrincipalOf(ctx)}
	if len(p.principal) > maxName {
		return item{}, fmt.Errorf("the principal's name has %d bytes, %d are the most", len(p.principal), maxName)
	}
	x := c.s.index
	x.mu.RLock()
	defer x.mu.RUnlock()
	if a, _ := x.action(c.name, act); a != nil {
		p.time = max(p.time, join(a.time)+1)
	}
	if x.manifest != nil {
		for i := range x.manifest.Rules {
			if r := &x.manifest.Rules[i]; r.match(c.name, p.principal, p.time) {
				p.time = r.Until + 1
			}
		}
	}
	payload := appendPointer(nil, p)
	return item{header: header{kindAction, c.name, act, int64(len(payload))}, payload: payload, pointer: p}, nil
}

// GetActionResult implements cache.ActionCache.
func (c *Cache) GetActionResult(ctx context.Context, act digest.Digest) (*repb.ActionResult, error) {
	d, err := c.GetAction(ctx, act)
	if err != nil {
		return nil, err
	}
	ar := new(repb.ActionResult)
	if err := cache.ReadMessage(ctx, c, d, ar); err != nil {
		return nil, fmt.Errorf("read the result of action %s: %w", act, err)
	}
	return ar, nil
}

// UpdateActionResult implements cache.ActionCache. The message and the pointer to it share a commit if the message is
// small.
func (c *Cache) UpdateActionResult(ctx context.Context, act digest.Digest, ar *repb.ActionResult) error {
	if err := c.writable(ctx, act); err != nil {
		return fmt.Errorf("put the result of an action: %w", err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(ar)
	if err != nil {
		return fmt.Errorf("put the result of action %s: %w", act, err)
	}
	d := act.Function().FromBytes(b)
	if len(b) == 0 || len(b) > maxSmall {
		if err := c.Put(ctx, d, bytes.NewReader(b)); err != nil {
			return fmt.Errorf("put the result of action %s: %w", act, err)
		}
		return c.PutAction(ctx, act, d)
	}
	for range tries {
		asked := c.s.now()
		if err := c.putResult(ctx, act, d, b); err != nil {
			return fmt.Errorf("put the result of action %s: %w", act, err)
		}
		if since(c.s.now(), asked) < maxAnswer {
			return nil
		}
	}
	return fmt.Errorf("put the result of action %s: %w: the bucket is too slow", act, ErrStale)
}

// putResult commits the message, unless it is there, and the pointer to it.
func (c *Cache) putResult(ctx context.Context, act, d digest.Digest, b []byte) error {
	have, err := c.present(ctx, []digest.Digest{d})
	if err != nil {
		return err
	}
	it, err := c.pointer(ctx, act, d)
	if err != nil {
		return err
	}
	group := []item{c.blob(d, b), it}
	if have[0] {
		group = group[1:]
	}
	return c.s.commits.commit(ctx, [][]item{group})
}
