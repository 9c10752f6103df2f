// Package instance finds the cache that an instance name stands for, and decides who may do what with it.
//
// Instances share nothing: each has a namespace of its own in the store, so that knowing a digest grants no right to what
// it names. The one exception is said in the configuration: an instance may overlay a parent. It reads the parent's blobs
// and results beside its own, and writes only its own. So pull requests use what protected branches built, and cannot
// change it.
package instance

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/full"
	"github.com/pexpress/pexpress/cache/server"
)

// Store holds namespaces.
type Store interface {
	// Namespace returns the CAS and ActionCache of a name, which have room for what is written to them. Names that are only
	// asked for are many and made up: nothing that lasts is made for one before something is written, see full.Lazy.
	Namespace(name string) (cache.CAS, cache.ActionCache, error)
	// Usage returns how many bytes a namespace holds, or held less than 30 seconds ago.
	Usage(ctx context.Context, name string) (int64, error)
}

// Instances implements server.Instances.
type Instances struct {
	store Store
	match matcher
	mu    sync.RWMutex
	views map[string]*view
}

var _ server.Instances = (*Instances)(nil)

// view is what an instance looks like to those who may use it.
type view struct {
	cas     full.CAS
	own     cache.ActionCache
	parents []cache.ActionCache
	written bool // it was handed to one who may write, and is not forgotten for others
	server.Instance
}

// New returns the instances that the configurations describe.
func New(store Store, configs []Config) (*Instances, error) {
	if err := check(configs); err != nil {
		return nil, err
	}
	return &Instances{store: store, match: newMatcher(configs), views: map[string]*view{}}, nil
}

// Instance implements server.Instances.
func (s *Instances) Instance(ctx context.Context, name string, want server.Access) (server.Instance, error) {
	c, err := s.match.find(name)
	if err != nil {
		return server.Instance{}, status.Error(codes.InvalidArgument, err.Error())
	}
	who := cache.PrincipalOf(ctx)
	if !c.allows(want).Match(who) {
		return server.Instance{}, denied(who, name, want)
	}
	v, err := s.view(name, c, want != server.Read)
	if err != nil {
		return server.Instance{}, err
	}
	return v.Instance, nil
}

// May reports whether the caller has a right to an instance.
func (s *Instances) May(ctx context.Context, name string, want server.Access) bool {
	c, err := s.match.find(name)
	return err == nil && c.allows(want).Match(cache.PrincipalOf(ctx))
}

// Family returns the name under which an instance is configured: its own, or the pattern that it fits. There are few of
// them, whatever clients ask for, so that metrics may be labelled with it. ok is false for what is not configured.
func (s *Instances) Family(name string) (family string, ok bool) {
	c, err := s.match.find(name)
	if err != nil {
		return "", false
	}
	return c.Name, true
}

// MayReadFamily reports whether the caller may read the instances that are configured under a name.
func (s *Instances) MayReadFamily(ctx context.Context, family string) bool {
	for _, c := range s.match.configs {
		if c.Name == family {
			return c.Read.Match(cache.PrincipalOf(ctx))
		}
	}
	return false
}

// Reads reports whether the caller may read any instance, and whether all that are configured.
func (s *Instances) Reads(ctx context.Context) (some, all bool) {
	all = true
	for _, c := range s.match.configs {
		may := c.Read.Match(cache.PrincipalOf(ctx))
		some, all = some || may, all && may
	}
	return some, all && some
}

func denied(who, name string, want server.Access) error {
	if who == "" || who == auth.Anonymous {
		return status.Errorf(codes.Unauthenticated, "instance %q takes no one who shows no credentials: send a token, or a client certificate", name)
	}
	return status.Errorf(codes.PermissionDenied, "%s has no %s right to instance %q: who runs the cache can grant it there", who, Right(want), name)
}

// maxViews bounds the instances that patterns make in one process. Those that are only read are forgotten when it is
// reached, so that readers who make up names do not keep writers out.
const maxViews = 20_000

func (s *Instances) view(name string, c *Config, write bool) (*view, error) {
	s.mu.RLock()
	v := s.views[name]
	known := v != nil && (v.written || !write)
	s.mu.RUnlock()
	if known {
		return v, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.make(name, c)
	if err == nil && write {
		v.written = true
	}
	return v, err
}

// make returns the view of a name. s.mu is held.
func (s *Instances) make(name string, c *Config) (*view, error) {
	if v := s.views[name]; v != nil {
		return v, nil
	}
	if len(s.views) >= maxViews {
		maps.DeleteFunc(s.views, func(_ string, v *view) bool { return !v.written })
	}
	if len(s.views) >= maxViews {
		return nil, status.Errorf(codes.ResourceExhausted, "instance %q: this server has seen writers of %d instances since it was started, and remembers no more: start it again", name, maxViews)
	}
	cas, ac, err := s.store.Namespace(name)
	if err != nil {
		return nil, fmt.Errorf("instance %q: %w", name, err)
	}
	v := &view{cas: full.Of(cas), own: ac}
	if c.Quota > 0 {
		q := newQuota(name, c.Quota, s.store.Usage)
		v.cas, v.own = &limitedCAS{v.cas, q}, &limitedActions{v.own, q}
	}
	if c.Parent != nil {
		parent, err := s.make(*c.Parent, s.match.exact[*c.Parent])
		if err != nil {
			return nil, err
		}
		v.cas = newOverlay(v.cas, parent.cas)
		v.parents = append([]cache.ActionCache{parent.own}, parent.parents...)
	}
	v.Instance = server.Instance{CAS: v.cas, ActionCache: v.actions()}
	s.views[name] = v
	return v, nil
}

// actions returns the ActionCache of a view: every result is checked against all that the view can read.
func (v *view) actions() cache.ActionCache {
	a := &firstOf{own: complete.New(v.cas, v.own)}
	for _, p := range v.parents {
		a.parents = append(a.parents, complete.New(v.cas, p))
	}
	if len(a.parents) == 0 {
		return a.own
	}
	return a
}
