package page

import (
	"context"
	"net/http"
	"time"

	"github.com/pexpress/pexpress/codeserver/access"
)

// events sends the state of all locations that the caller may read, now and whenever there is something new.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	news, stop, err := p.feed.watch()
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer stop()
	out := p.begin(w)
	for {
		if _, at, _ := p.feed.latest(); !at.IsZero() {
			if _, err := p.identify(r); err != nil {
				return // the page asks again, and is told
			}
			if out.send("state", p.stateFor(r.Context())) != nil {
				return
			}
		}
		select {
		case <-news:
		case <-r.Context().Done():
			return
		}
	}
}

// stateFor returns the state as the principal of a context may see it.
func (p *Page) stateFor(ctx context.Context) stateView {
	all, at, last := p.feed.latest()
	v := stateView{Now: at, Locations: []locationView{}}
	for _, l := range all {
		if !p.control.may(ctx, access.Read, l.GetName()) {
			continue
		}
		view := viewOf(l)
		view.MayRollback = p.control.may(ctx, access.Rollback, l.GetName())
		if point, ok := last[l.GetName()]; ok {
			view.Last = &point
		}
		v.Locations = append(v.Locations, view)
	}
	return v
}

// history sends what a location used in the last hour.
func (p *Page) history(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	points := p.feed.pointsOf(name)
	if points == nil || !p.control.may(r.Context(), access.Read, name) {
		fail(w, http.StatusNotFound, "there is no such location, or you may not read it")
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"step": step.Seconds(), "points": points})
}

// whileKnown returns a context that ends when the caller's credentials are no longer good.
func (p *Page) whileKnown(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	go func() {
		again := time.NewTicker(step)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-again.C:
			}
			if _, err := p.identify(r); err != nil {
				cancel()
				return
			}
		}
	}()
	return ctx, cancel
}
