// Package complete is an ActionCache decorator that keeps REAPI's promise about results: one is returned only when the
// CAS holds everything it reaches.
package complete

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

type actionCache struct {
	base cache.ActionCache
	cas  cache.CAS
}

// New returns an ActionCache that answers from base, and reports a result as not found when cas lacks a part of it:
// a backend evicts blobs by age, without knowing which result still names them, and a build that is handed a result
// with a gap fails far from the cause. An update is refused for the same reason. Asking also renews the use of every
// blob that the result reaches.
func New(cas cache.CAS, base cache.ActionCache) cache.ActionCache {
	return &actionCache{base, cas}
}

// GetActionResult implements cache.ActionCache.
func (c *actionCache) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	ar, err := c.base.GetActionResult(ctx, action)
	if err != nil {
		return nil, err
	}
	missing, err := c.missing(ctx, action.Function(), ar)
	if errors.Is(err, cache.ErrNotFound) || errors.Is(err, digest.ErrMismatch) {
		return nil, fmt.Errorf("%w: %w", cache.NotFound("a part of the ActionResult of", action), err)
	}
	if err != nil {
		return nil, fmt.Errorf("check the ActionResult of %s: %w", action, err)
	}
	if len(missing) > 0 {
		return nil, cache.NotFound(fmt.Sprintf("blob %s and %d others of the ActionResult of", missing[0], len(missing)-1), action)
	}
	return ar, nil
}

// UpdateActionResult implements cache.ActionCache.
func (c *actionCache) UpdateActionResult(ctx context.Context, action digest.Digest, ar *repb.ActionResult) error {
	missing, err := c.missing(ctx, action.Function(), ar)
	if err != nil {
		return fmt.Errorf("check the ActionResult of %s: %w", action, err)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the ActionResult of %s names %d blobs that are not in the CAS, %s among them: %w",
			action, len(missing), missing[0], cache.ErrNotFound)
	}
	return c.base.UpdateActionResult(ctx, action, ar)
}

func (c *actionCache) missing(ctx context.Context, fn digest.Function, ar *repb.ActionResult) ([]digest.Digest, error) {
	all, err := Closure(ctx, c.cas, fn, ar)
	if err != nil {
		return nil, err
	}
	return c.cas.FindMissing(ctx, all)
}
