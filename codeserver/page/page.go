// Package page is the codeserver's web page: what each location serves and has served, what differs between versions, how
// long each step of a deploy took, memory and processor over time, logs, and a rollback.
//
// The page is a client of the control API like any other: what it shows and does goes through the same methods and, where
// there is a policy, the same rights. What the browser runs is in assets/; the JSON between the two is nobody else's
// business, and may change with every release.
package page

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/codeserver/access"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// Options say what the page shows, and to whom.
type Options struct {
	// Control is the control API.
	Control codeserverpb.CodeServerServer
	// Changes returns a channel that is sent to when something that List shows has changed.
	Changes func() (changes <-chan struct{}, stop func())
	// Trees has the Directories of the versions, for comparing them.
	Trees cache.CAS
	// Authenticator and Policy say who may see and do what. Without them it is everyone who reaches the page, which then
	// answers to names of the loopback interface alone.
	Authenticator *auth.Authenticator
	Policy        *access.Policy
	// TLS says that the page is served over TLS and nothing else.
	TLS bool
	// Name is the host's, for the title.
	Name string
	Log  *slog.Logger
}

// Page is the page. Run keeps it up to date.
type Page struct {
	opts     Options
	control  *control
	sessions *sessions
	key      []byte // makes the keys of those who have no session
	feed     *feed
	comparer chan struct{} // comparisons under way
	readers  chan struct{} // logs that are read
	patience time.Duration // for a browser that does not take what it is sent
}

const (
	maxComparisons = 2   // at a time
	maxReaders     = 64  // of logs, at a time
	maxWatchers    = 128 // of the page's state, at a time
)

// New returns a page.
func New(opts Options) *Page {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	p := &Page{
		opts: opts, control: &control{opts.Control, opts.Policy}, sessions: newSessions(time.Now), key: make([]byte, 32),
		comparer: make(chan struct{}, maxComparisons), readers: make(chan struct{}, maxReaders), patience: writeTime,
	}
	_, _ = rand.Read(p.key) // never fails
	p.feed = newFeed(p.everything, opts.Changes)
	return p
}

// Run samples what locations use, and tells those who look at the page what is new, until ctx ends.
func (p *Page) Run(ctx context.Context) { p.feed.run(ctx) }

// Handler serves the page at /.
func (p *Page) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", serveIndex)
	mux.HandleFunc("GET /assets/{name}", serveAsset)
	mux.Handle("GET /api/session", p.known(p.showSession))
	mux.HandleFunc("POST /api/session", p.signIn)
	mux.Handle("DELETE /api/session", p.known(p.signOut))
	mux.Handle("GET /api/events", p.known(p.events))
	mux.Handle("GET /api/locations/{name}/history", p.known(p.history))
	mux.Handle("GET /api/locations/{name}/compare", p.known(p.compare))
	mux.Handle("GET /api/locations/{name}/logs", p.known(p.logs))
	mux.Handle("POST /api/locations/{name}/rollback", p.known(p.rollback))
	return Whole(p.guard(mux))
}

// everything is what the server itself sees, whoever looks.
func (p *Page) everything(ctx context.Context) ([]*codeserverpb.Location, error) {
	list, err := p.opts.Control.List(ctx, &codeserverpb.ListRequest{})
	return list.GetLocations(), err
}
