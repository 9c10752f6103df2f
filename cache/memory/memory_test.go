package memory_test

import (
	"testing"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

func TestCAS(t *testing.T) {
	for _, fn := range digest.Functions {
		t.Run(fn.String(), func(t *testing.T) {
			cachetest.TestCASWith(t, fn, func(*testing.T) cache.CAS { return memory.New() })
		})
	}
}

func TestActionCache(t *testing.T) {
	for _, fn := range digest.Functions {
		t.Run(fn.String(), func(t *testing.T) {
			cachetest.TestActionCacheWith(t, fn, func(*testing.T) (cache.CAS, cache.ActionCache) {
				s := memory.New()
				return s, s
			})
		})
	}
}
