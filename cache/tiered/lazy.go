package tiered

import (
	"github.com/pexpress/pexpress/cache/full"
	"github.com/pexpress/pexpress/cache/pack"
)

// LazyNamespace returns a namespace of a store that is made when something is first written to it: a store has few
// numbers for them, and clients make up names.
func LazyNamespace(s *pack.Store, name string) *full.Lazy {
	return full.NewLazy(func() (full.Cache, bool) {
		c, ok := s.Lookup(name)
		return c, ok
	}, func() (full.Cache, error) { return s.Namespace(name) })
}
