package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// shownAfter is how long something is waited for before a terminal says so.
const shownAfter = 2 * time.Second

// waiting shows on a terminal, until done is called, what has been waited for since a time and takes at most limit.
func (a *app) waiting(what string, since time.Time, limit time.Duration) (done func()) {
	if !a.ui.terminal || a.ui.json {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer a.ui.status("")
		for wait := time.Until(since.Add(shownAfter)); ; wait = time.Second {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
			a.ui.status(fmt.Sprintf("%s: %s of %s", what, min(time.Since(since), limit).Round(time.Second), limit))
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// readiness shows which versions of a deploy have started and are not ready.
type readiness struct {
	app     *app
	limit   time.Duration
	pending map[string]time.Time // by location, "" where there is one
	done    func()
}

// stage takes note of a step that has ended.
func (r *readiness) stage(st *codeserverpb.Stage) {
	r.close()
	switch st.GetName() {
	case "start", "fork":
		r.pending[st.GetLocation()] = time.Now()
	case "ready":
		delete(r.pending, st.GetLocation())
	}
	if len(r.pending) == 0 {
		return
	}
	names, since := slices.Sorted(maps.Keys(r.pending)), time.Now()
	for _, t := range r.pending {
		if t.Before(since) {
			since = t
		}
	}
	who := strings.Join(names, ", ")
	if who == "" {
		who = "the version"
	}
	r.done = r.app.waiting("waiting for "+who+" to become ready", since, r.limit)
}

func (r *readiness) close() {
	if r.done != nil {
		r.done()
		r.done = nil
	}
}

// showCanary says that a canary begins once the codeserver has begun it, which it does not where no version is up, and shows
// on a terminal how long it goes on, until done is called.
func (a *app) showCanary(ctx context.Context, srv codeserverpb.CodeServerClient, req *codeserverpb.DeployRequest) (done func()) {
	_, version, err := digest.Marshal(req.GetSpec())
	if req.GetCanary() == nil || err != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		hide := func() {}
		shown := false
		// Who may deploy and not look is not told: an error of the watch is none of the deploy.
		_ = (&feed{srv: srv, name: req.GetLocation()}).each(ctx, func(l *codeserverpb.Location) {
			if begun := l.GetCanary() == version.Hash(); begun && !shown {
				shown = true
				a.reportCanary(req, l)
				hide = a.waiting("canary", time.Now(), req.GetCanary().GetDuration().AsDuration())
			} else if !begun {
				hide()
			}
		})
		hide()
	}()
	return func() {
		cancel()
		<-ended
	}
}

func (a *app) reportCanary(req *codeserverpb.DeployRequest, l *codeserverpb.Location) {
	c := req.GetCanary()
	lasts := c.GetDuration().AsDuration()
	text := fmt.Sprintf("%d %% of the requests for %s, %s. It is withdrawn if more fail than of %s, by over %s",
		l.GetCanaryPercent(), l.GetName()+"@"+short(l.GetCanary()), lasts, short(l.GetCurrent()), count(int64(c.GetMaxMoreErrorsPercent()), "percent point"))
	if p := c.GetMaxLatencyPercent(); p != 0 {
		text += fmt.Sprintf(", or its median latency is over %d %% of that one's", p)
	}
	a.ui.event("canary", map[string]any{
		"location": l.GetName(), "version": l.GetCanary(), "percent": l.GetCanaryPercent(), "milliseconds": milliseconds(lasts),
		"errors": c.GetMaxMoreErrorsPercent(), "latency": c.GetMaxLatencyPercent(), "serving": l.GetCurrent(),
	}, "%-14s %9s  %s", "canary", "begins", text)
}
