package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/plugin"
)

// checkBuilds builds the first sample; whether the host believes the answer is the next check's.
func checkBuilds(ctx context.Context, s *suite) error {
	a, err := s.sampleAction(ctx, 0)
	if err != nil {
		return err
	}
	var r *repb.ActionResult
	r, s.buildOf = s.process.Build(ctx, s.cas, a)
	if s.buildOf == nil {
		s.root, s.buildOf = outputRoot(r)
	}
	if s.buildOf != nil && !errors.Is(s.buildOf, plugin.ErrResult) {
		return fmt.Errorf("kind %s: %w (give inputs that it builds with --input)", s.kind(), s.buildOf)
	}
	return nil
}

func checkCanonical(_ context.Context, s *suite) error { return s.buildOf }

func checkOutputPath(ctx context.Context, s *suite) error {
	a, err := s.action(ctx, s.kind(), s.about.OutputVersion, "another-name", s.samples[0].root)
	if err != nil {
		return err
	}
	_, err = s.process.Build(ctx, s.cas, a)
	if err != nil && s.opts.Inputs != "" && errors.Is(err, plugin.ErrInvalidAction) {
		return errSkip{"the kind has one output by a name of its own"}
	}
	return err
}

// refused builds what has to be refused in a certain way.
func (s *suite) refused(ctx context.Context, kind, version string, root digest.Digest, want error, why string) error {
	a, err := s.action(ctx, kind, version, s.outputPath(), root)
	if err != nil {
		return err
	}
	_, err = s.process.Build(ctx, s.cas, a)
	switch {
	case err == nil:
		return fmt.Errorf("%s is built", why)
	case !errors.Is(err, want):
		return fmt.Errorf("%s is refused in another way: %w", why, err)
	}
	return nil
}

func checkUnknownKind(ctx context.Context, s *suite) error {
	return s.refused(ctx, "no-such-kind", s.about.OutputVersion, s.samples[0].root, plugin.ErrInvalidAction, "an Action of a kind that is not the builder's")
}

func checkUnknownVersion(ctx context.Context, s *suite) error {
	return s.refused(ctx, s.kind(), s.about.OutputVersion+"-other", s.samples[0].root, plugin.ErrOutputVersion,
		"an Action for an output version that is not the builder's")
}

func checkUnreadable(ctx context.Context, s *suite) error {
	return s.refused(ctx, s.kind(), s.about.OutputVersion, digest.FromBytes([]byte("a Directory that no cache has")), plugin.ErrInputUnreadable,
		"an Action whose input root the cache has lost")
}

// checkConcurrent builds both samples many times at once: what belongs to one build must not reach another.
func checkConcurrent(ctx context.Context, s *suite) error {
	var wg sync.WaitGroup
	roots, errs := make([]digest.Digest, 8), make([]error, 8)
	for i := range roots {
		a, err := s.sampleAction(ctx, i%2)
		if err != nil {
			return err
		}
		wg.Go(func() {
			var r *repb.ActionResult
			if r, errs[i] = s.process.Build(ctx, s.cas, a); errs[i] == nil {
				roots[i], errs[i] = outputRoot(r)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// The second sample is built alone here, after the others: what this process keeps of them must not show either.
	a, err := s.sampleAction(ctx, 1)
	if err != nil {
		return err
	}
	r, err := s.process.Build(ctx, s.cas, a)
	if err != nil {
		return err
	}
	second, err := outputRoot(r)
	if err != nil {
		return err
	}
	for i, root := range roots {
		if alone := []digest.Digest{s.root, second}[i%2]; root != alone {
			return fmt.Errorf("built beside others the output is %s, alone it is %s", root.Short(), alone.Short())
		}
	}
	return nil
}

// checkAsked builds two Actions, one after the other, in one process: what it knows of the first must not serve the second.
func checkAsked(ctx context.Context, s *suite) error {
	p, err := s.connect()
	if err != nil {
		return err
	}
	defer p.close()
	for i := range s.samples {
		a, err := s.sampleAction(ctx, i)
		if err != nil {
			return err
		}
		_, vainly, err := s.buildRaw(ctx, p, i, a)
		if len(vainly) > 0 {
			return fmt.Errorf("building %s, it asks for blob %s, which the Action does not declare: read from the Action downwards", a.Short(), vainly[0])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// jitter is an environment in which much is other than usual.
func jitter(dir string) []string {
	return []string{
		"TZ=Asia/Kathmandu", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8", "PYTHONHASHSEED=4242", "HOME=" + filepath.Join(dir, "home"),
		"TMPDIR=" + filepath.Join(dir, "elsewhere"), "USER=nobody", "HOSTNAME=elsewhere",
	}
}

// buildPlain builds the first sample in a process of its own without isolation.
func (s *suite) buildPlain(ctx context.Context, env ...string) (digest.Digest, error) {
	p, err := plugin.Start(ctx, s.options(false, env...))
	if err != nil {
		return digest.Digest{}, err
	}
	defer p.Close()
	a, err := s.sampleAction(ctx, 0)
	if err != nil {
		return digest.Digest{}, err
	}
	r, err := p.Build(ctx, s.cas, a)
	if err != nil {
		return digest.Digest{}, err
	}
	return outputRoot(r)
}

func checkDeterminism(ctx context.Context, s *suite) error {
	for _, name := range []string{"home", "elsewhere"} {
		if err := os.MkdirAll(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	begun := time.Now().Unix()
	first, err := s.buildPlain(ctx, "TZ=UTC", "LANG=C", "LC_ALL=C", "PYTHONHASHSEED=1")
	if err != nil {
		return err
	}
	// A clock that is read in seconds has to show another one.
	if wait := time.Until(time.Unix(max(begun, time.Now().Unix())+1, 0)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	second, err := s.buildPlain(ctx, jitter(s.dir)...)
	if err != nil {
		return err
	}
	if first != second {
		return fmt.Errorf("the same Action gives %s, and a second later with another environment %s", first.Short(), second.Short())
	}
	s.outputs = first
	return nil
}

// checkOutside compares what was built with and without the sandbox: one who looks at more than the inputs sees a difference.
func checkOutside(_ context.Context, s *suite) error {
	if s.plain != "" {
		return errSkip{"this machine does not allow the sandbox: " + s.plain}
	}
	if s.outputs != s.root {
		return fmt.Errorf("in the sandbox, where only the inputs can be read, the output is %s, outside %s", s.root.Short(), s.outputs.Short())
	}
	return nil
}
