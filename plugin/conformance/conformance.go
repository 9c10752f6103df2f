// Package conformance checks a builder against the rules of docs/plugins.md: `pexpress plugin test`.
//
// Most of it runs the builder by package plugin, the real host. What the real host never does, such as offering a version
// that does not exist, or looking which blobs are asked for in vain, is done by a host of this package (raw.go).
package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/plugin"
)

// Options say what is checked.
type Options struct {
	// Command is the builder's program and arguments.
	Command []string
	// ReadOnly are further paths that the builder may read, as in plugin.Options.
	ReadOnly []string
	// Inputs is a directory that becomes the input root of the Actions that are built; a small sample if empty. Kind is
	// the one to build; the builder's first if empty.
	Inputs, Kind string
	// Timeout bounds one build and one start; a minute if 0.
	Timeout time.Duration
}

// Result is what a check found.
type Result struct {
	Check string
	// Err is what is wrong; nil if nothing is.
	Err error
	// Skipped says why it could not be checked.
	Skipped string
}

// ErrFailed says that a builder breaks a rule.
var ErrFailed = errors.New("the builder does not conform")

// errSkip is an error that skips its check.
type errSkip struct{ why string }

func (e errSkip) Error() string { return e.why }

// check is one rule.
type check struct {
	name string
	run  func(context.Context, *suite) error
	// needs is a check that must have passed for this one to say anything.
	needs string
}

// checks are all, in order. Names are for people, and for tests of this package.
var checks = []check{
	{name: "by hand: says what it is and ends", run: checkByHand},
	{name: "handshake", run: checkHandshake},
	{name: "protocol versions", run: checkVersions},
	{name: "lifeline: ends with its host", run: checkLifeline, needs: "handshake"},
	{name: "health", run: checkHealth, needs: "handshake"},
	{name: "starts in the sandbox", run: checkStart, needs: "handshake"},
	{name: "describe", run: checkDescribe, needs: "starts in the sandbox"},
	{name: "builds", run: checkBuilds, needs: "describe"},
	{name: "canonical trees", run: checkCanonical, needs: "builds"},
	{name: "output path of the Command", run: checkOutputPath, needs: "canonical trees"},
	{name: "unknown kind: INVALID_ARGUMENT", run: checkUnknownKind, needs: "describe"},
	{name: "unknown output version: UNIMPLEMENTED", run: checkUnknownVersion, needs: "describe"},
	{name: "unreadable input: FAILED_PRECONDITION", run: checkUnreadable, needs: "describe"},
	{name: "several builds at once", run: checkConcurrent, needs: "canonical trees"},
	{name: "asks for declared blobs only", run: checkAsked, needs: "canonical trees"},
	{name: "same outputs whatever the clock, TZ, locale, hash seed, paths", run: checkDeterminism, needs: "canonical trees"},
	{name: "reads nothing outside its inputs", run: checkOutside, needs: "same outputs whatever the clock, TZ, locale, hash seed, paths"},
}

// suite is one run of the checks.
type suite struct {
	opts    Options
	dir     string
	cas     *memory.Store
	process *plugin.Process // isolated, as in a build
	plain   string          // why it is not isolated, if this machine does not allow it
	about   plugin.Description
	samples [2]sample
	root    digest.Digest // that the isolated builder made of the first sample
	buildOf error         // of the first build
	outputs digest.Digest // of the first sample, without isolation
}

// Run checks a builder and reports each check's result when it is there. It returns ErrFailed if one failed.
func Run(ctx context.Context, opts Options, report func(Result)) (err error) {
	if opts.Timeout == 0 {
		opts.Timeout = time.Minute
	}
	dir, err := os.MkdirTemp("", "pexpress-test")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &suite{opts: opts, dir: dir, cas: memory.New()}
	if opts.Inputs != "" {
		if s.opts.Inputs, err = filepath.Abs(opts.Inputs); err != nil {
			return err
		}
	}
	if s.samples, err = samples(ctx, s.cas, s.opts.Inputs); err != nil {
		return err
	}
	defer func() {
		if s.process != nil {
			err = errors.Join(err, s.process.Close())
		}
	}()
	passed := map[string]bool{}
	failed := 0
	for _, c := range checks {
		r := Result{Check: c.name}
		if c.needs != "" && !passed[c.needs] {
			r.Skipped = fmt.Sprintf("needs %q", c.needs)
		} else {
			r.Err = c.run(ctx, s)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var skip errSkip
		if errors.As(r.Err, &skip) {
			r.Skipped, r.Err = skip.why, nil
		}
		passed[c.name] = r.Err == nil && r.Skipped == ""
		if r.Err != nil {
			failed++
		}
		report(r)
	}
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d checks failed", ErrFailed, failed, len(checks))
	}
	return nil
}
