package page

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// calm is the pause between two looks at the locations for something that has changed: a deploy changes several things one
// after the other.
const calm = 150 * time.Millisecond

var errWatchers = errors.New("too many pages are open: close some")

// feed holds the state of all locations and their history, for all who look at it.
type feed struct {
	list    func(context.Context) ([]*codeserverpb.Location, error)
	changes func() (<-chan struct{}, func())
	joined  chan struct{} // somebody has begun to look

	mu        sync.Mutex
	watchers  map[chan struct{}]bool
	locations []*codeserverpb.Location
	at        time.Time // when they were read
	series    map[string]*series
}

func newFeed(list func(context.Context) ([]*codeserverpb.Location, error), changes func() (<-chan struct{}, func())) *feed {
	return &feed{
		list: list, changes: changes, joined: make(chan struct{}, 1),
		watchers: map[chan struct{}]bool{}, series: map[string]*series{},
	}
}

// watch returns a channel that is sent to when there is something new. One that is not read from holds nobody up, and holds
// one signal at most.
func (f *feed) watch() (news <-chan struct{}, stop func(), err error) {
	c := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.watchers) >= maxWatchers {
		return nil, nil, errWatchers
	}
	f.watchers[c] = true
	select {
	case f.joined <- struct{}{}:
	default:
	}
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, c)
	}, nil
}

// run keeps the feed until ctx ends: a sample every step, and while somebody looks what has changed at once.
func (f *feed) run(ctx context.Context) {
	changes, stop := f.changes()
	defer stop()
	samples := time.NewTicker(step)
	defer samples.Stop()
	f.look(ctx, true)
	for {
		select {
		case <-ctx.Done():
			return
		case <-samples.C:
			f.look(ctx, true)
			continue
		case <-f.joined:
		case <-changes:
			if !f.watched() {
				continue // who comes later is shown what is then
			}
		}
		f.look(ctx, false)
		select {
		case <-time.After(calm):
		case <-ctx.Done():
		}
	}
}

func (f *feed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers) > 0
}

// look reads the locations, and tells those who watch.
func (f *feed) look(ctx context.Context, sample bool) {
	all, err := f.list(ctx)
	if err != nil {
		return // what was read before is shown, with its time
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.locations, f.at = all, time.Now()
	f.sample(sample)
	for c := range f.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// sample adds a point to each location's history, or to that of new ones alone, and forgets that of locations that are
// gone. f.mu is held.
func (f *feed) sample(all bool) {
	there := map[string]*series{}
	for _, l := range f.locations {
		s := f.series[l.GetName()]
		if s == nil || all {
			if s == nil {
				s = &series{}
			}
			s.add(f.at, l)
		}
		there[l.GetName()] = s
	}
	f.series = there
}

// latest returns the locations, when they were read, and each one's last point.
func (f *feed) latest() ([]*codeserverpb.Location, time.Time, map[string]point) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := map[string]point{}
	for name, s := range f.series {
		last[name] = s.points[len(s.points)-1]
	}
	return f.locations, f.at, last
}

// pointsOf returns the history of a location, nil if there is none.
func (f *feed) pointsOf(location string) []point {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.series[location]
	if s == nil {
		return nil
	}
	return slices.Clone(s.points)
}
