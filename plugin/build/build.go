// Package build turns plans into results: it looks an Action up in the ActionCache, and only when it is not there
// brings the inputs into the CAS and has a builder run it.
//
// A hit starts no process and moves no byte. What reaches the cache does so in the order that REAPI asks for: inputs,
// then outputs, then the ActionResult.
package build

import (
	"context"
	"errors"
	"fmt"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/plugin"
	"github.com/pexpress/pexpress/plugin/action"
)

// Builders starts the builder that runs an Action of the given kind. It is asked only on a miss.
type Builders interface {
	Builder(ctx context.Context, kind string) (plugin.Builder, error)
}

// Executor runs plans. ActionCache should be one that checks closures (package complete), so that a result whose
// blobs were evicted is a miss.
type Executor struct {
	CAS         cache.CAS
	ActionCache cache.ActionCache
	Builders    Builders
}

// Result is an Action that has been run, now or before.
type Result struct {
	Kind   string        `json:"kind"`
	Action digest.Digest `json:"action"`
	// Root is the root Directory of the output tree: the output's identity.
	Root digest.Digest `json:"root"`
	// Hit is whether the ActionCache had the result.
	Hit bool `json:"hit"`
	// Took is the time from the lookup to the result, fetching and building included.
	Took time.Duration `json:"-"`
}

// Run returns the plan's result. On a miss it calls inputs, which must bring the files that the plan names into the
// CAS, and then has the plan built.
func (e *Executor) Run(ctx context.Context, plan *action.Plan, inputs func(context.Context) error) (*Result, error) {
	start := time.Now()
	r := &Result{Kind: plan.Kind, Action: plan.Digest}
	ar, err := e.ActionCache.GetActionResult(ctx, plan.Digest)
	switch {
	case err == nil:
		r.Hit = true
	case errors.Is(err, cache.ErrNotFound):
		if ar, err = e.buildAgain(ctx, plan, inputs); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("look up %s action %s: %w", plan.Kind, plan.Digest, err)
	}
	if r.Root, err = outputRoot(ar, plan.Output); err != nil {
		return nil, fmt.Errorf("%s action %s: %w", plan.Kind, plan.Digest, err)
	}
	r.Took = time.Since(start)
	return r, nil
}

// attempts is how often something is begun anew when the cache loses what it needs.
const attempts = 8

// Again runs f, and runs it anew when the cache has lost a blob meanwhile: another process collects garbage, or a copy
// turned out corrupt and was set aside. f must bring again whatever is missing.
func Again(ctx context.Context, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		lost := errors.Is(err, cache.ErrNotFound) || errors.Is(err, digest.ErrMismatch) || errors.Is(err, plugin.ErrInputUnreadable)
		if err == nil || !lost || ctx.Err() != nil {
			return err
		}
		if attempt == attempts {
			return fmt.Errorf("the cache lost blobs during each of %d attempts (is something emptying it?): %w", attempts, err)
		}
	}
}

// refusal is why the inputs are not brought, such as a wheel that is not what the lock says: no second try mends that.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// buildAgain brings what a plan needs and builds, and does so anew when the cache has lost a blob meanwhile.
func (e *Executor) buildAgain(ctx context.Context, plan *action.Plan, inputs func(context.Context) error) (*repb.ActionResult, error) {
	var ar *repb.ActionResult
	var refused refusal
	err := Again(ctx, func() (err error) {
		if err = e.bring(ctx, plan, inputs); errors.As(err, &refused) {
			return nil
		}
		if err != nil {
			return err
		}
		ar, err = e.build(ctx, plan)
		return err
	})
	if refused.error != nil {
		return nil, fmt.Errorf("inputs of %s: %w", plan.Output, refused.error)
	}
	return ar, err
}

// bring stores a plan and, beside it, its inputs. Either stops the other when it fails.
func (e *Executor) bring(ctx context.Context, plan *action.Plan, inputs func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := plan.Upload(ctx, e.CAS); err != nil {
			return fmt.Errorf("upload the %s action: %w", plan.Kind, err)
		}
		return nil
	})
	g.Go(func() error {
		if err := inputs(ctx); err != nil {
			return refusal{err}
		}
		return nil
	})
	return g.Wait()
}

// build runs a plan that is in the CAS, as its inputs are.
func (e *Executor) build(ctx context.Context, plan *action.Plan) (*repb.ActionResult, error) {
	b, err := e.Builders.Builder(ctx, plan.Kind)
	if err != nil {
		return nil, err
	}
	ar, err := b.Build(ctx, e.CAS, plan.Digest)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", plan.Output, err)
	}
	if err := e.ActionCache.UpdateActionResult(ctx, plan.Digest, ar); err != nil {
		return nil, fmt.Errorf("store the result of %s action %s: %w", plan.Kind, plan.Digest, err)
	}
	return ar, nil
}

// outputRoot returns the root Directory's digest of the output directory at path.
func outputRoot(ar *repb.ActionResult, path string) (digest.Digest, error) {
	for _, d := range ar.GetOutputDirectories() {
		if d.GetPath() == path {
			return digest.FromProto(d.GetRootDirectoryDigest())
		}
	}
	return digest.Digest{}, fmt.Errorf("its result has no output directory %s", path)
}
