package channel

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// ErrAgain is wrapped by what Options.Deploy returns when trying again may help: a cache that is away, a blob that is on
// its way. Any other error is the version's own fault, and it is not tried again.
var ErrAgain = errors.New("it is tried again")

// Options say how a channel is followed.
type Options struct {
	Name string
	// Locations are those of the channel that are followed; all if there are none.
	Locations []string
	// Keys are the publishers'.
	Keys []ed25519.PublicKey
	// Every is how often the pointer is looked at, one tenth more or less.
	Every time.Duration
	// Dir keeps what must outlive the process.
	Dir string
	// Open opens the cache.
	Open func(ctx context.Context) (cache.CAS, cache.ActionCache, io.Closer, error)
	// Deploy has a location serve a version.
	Deploy func(ctx context.Context, location string, r Release) error
	// Report is told how each location stands to the channel: nil if it was deployed as the pointer says. Where all locations
	// of the channel are followed it is told of All, too: an error as long as the pointer cannot be read and none is known.
	Report func(location string, err error)
	Log    *slog.Logger
}

// All stands for the locations of a channel that could not be read yet. It is no location's name.
const All = "*"

// A Follower keeps locations at what a channel says.
type Follower struct {
	opts   Options
	seen   seen
	failed map[string]error // for good, until the pointer moves
	cas    cache.CAS
	ac     cache.ActionCache
	closer io.Closer
}

// New returns a follower that remembers what it has seen.
func New(opts Options) (*Follower, error) {
	if err := CheckName(opts.Name); err != nil {
		return nil, err
	}
	if len(opts.Keys) == 0 {
		return nil, fmt.Errorf("channel %s: no key says whose pointers are believed", opts.Name)
	}
	f := &Follower{opts: opts, failed: map[string]error{}}
	var err error
	if f.seen, err = readSeen(f.path()); err != nil {
		return nil, fmt.Errorf("channel %s: %w", opts.Name, err)
	}
	return f, nil
}

// mostWait is how long is waited at most after errors, unless the normal pause is longer.
const mostWait = time.Minute

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	defer f.disconnect()
	wait := f.opts.Every
	for {
		if err := f.Poll(ctx); err == nil {
			wait = f.opts.Every
		} else if ctx.Err() == nil {
			f.opts.Log.Warn("a channel cannot be followed", "channel", f.opts.Name, "error", err)
			f.disconnect()
			wait = min(2*wait, max(f.opts.Every, mostWait))
		}
		// Not all of a fleet at the same moment.
		timer := time.NewTimer(wait*9/10 + rand.N(wait/5+1)) //nolint:gosec // no secret
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (f *Follower) disconnect() {
	if f.closer != nil {
		_ = f.closer.Close()
	}
	f.cas, f.ac, f.closer = nil, nil, nil
}

// Poll looks at the pointer once, and deploys what it says. An error means that it is to be looked at again: a version that
// cannot be served is reported, and is none.
func (f *Follower) Poll(ctx context.Context) error {
	p, err := f.pointer(ctx)
	if err != nil {
		known := f.locations()
		for _, name := range known {
			f.opts.Report(name, errors.Join(err, f.failed[name]))
		}
		if len(known) == 0 {
			f.opts.Report(All, err)
		}
		return err
	}
	if len(f.opts.Locations) == 0 {
		f.opts.Report(All, nil)
	}
	var again []error
	for _, name := range f.locations() {
		r, ok := p.Locations[name]
		if !ok {
			f.opts.Report(name, fmt.Errorf("channel %s, sequence %d, says nothing of it", p.Channel, p.Sequence))
			continue
		}
		if f.seen.Locations[name] || f.failed[name] != nil {
			f.opts.Report(name, f.failed[name])
			continue
		}
		if err := f.deploy(ctx, p, name, r); err != nil {
			again = append(again, err)
		}
	}
	return errors.Join(again...)
}

// deploy deploys one location, and returns an error if that is to be tried again.
func (f *Follower) deploy(ctx context.Context, p *Pointer, name string, r Release) error {
	err := f.opts.Deploy(ctx, name, r)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("channel %s, sequence %d: %w", p.Channel, p.Sequence, err)
		f.opts.Report(name, err)
		if errors.Is(err, ErrAgain) {
			return err
		}
		f.failed[name] = err
		f.opts.Log.Warn("a version of a channel is not served", "channel", p.Channel, "location", name, "error", err)
		return nil
	}
	f.opts.Report(name, nil)
	f.seen.Locations[name] = true
	return f.seen.write(f.path())
}

// pointer returns the present pointer, which is one that was not seen before, or the last that was.
func (f *Follower) pointer(ctx context.Context) (*Pointer, error) {
	if f.cas == nil {
		var err error
		if f.cas, f.ac, f.closer, err = f.opts.Open(ctx); err != nil {
			return nil, fmt.Errorf("channel %s: open the cache: %w", f.opts.Name, err)
		}
	}
	envelope, err := Fetch(ctx, f.cas, f.ac, f.opts.Name)
	if err != nil {
		return nil, err
	}
	p, payload, err := Verify(ctx, envelope, f.opts.Name, f.opts.Keys)
	if err != nil {
		return nil, err
	}
	content := digest.FromBytes(payload).Hash()
	switch {
	case p.Sequence < f.seen.Sequence:
		return nil, fmt.Errorf("%w: channel %s: sequence %d was published before %d, which was seen here: somebody plays it back, "+
			"or the cache was restored from an old copy; publishing again mends the latter", ErrRefused, f.opts.Name, p.Sequence, f.seen.Sequence)
	case p.Sequence == f.seen.Sequence && content != f.seen.Content:
		return nil, fmt.Errorf("%w: channel %s: there are two pointers of sequence %d: publish again", ErrRefused, f.opts.Name, p.Sequence)
	case p.Sequence == f.seen.Sequence:
		return p, nil
	}
	// Kept before anything is done about it: also after a crash nothing older is believed.
	next := seen{Sequence: p.Sequence, Content: content, Locations: map[string]bool{}}
	for _, name := range f.followed(p) {
		next.Locations[name] = false
	}
	if err := next.write(f.path()); err != nil {
		return nil, err
	}
	f.seen = next
	clear(f.failed)
	return p, nil
}

// followed are the locations that are followed, of those that a pointer names.
func (f *Follower) followed(p *Pointer) []string {
	if len(f.opts.Locations) > 0 {
		return f.opts.Locations
	}
	return slices.Sorted(maps.Keys(p.Locations))
}

// locations are those that are followed, as far as that is known.
func (f *Follower) locations() []string {
	if len(f.opts.Locations) > 0 {
		return f.opts.Locations
	}
	return slices.Sorted(maps.Keys(f.seen.Locations))
}
