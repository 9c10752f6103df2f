package memory_test

import (
	"testing"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/memory"
)

func TestCAS(t *testing.T) {
	cachetest.TestCAS(t, func(*testing.T) cache.CAS { return memory.New() })
}

func TestActionCache(t *testing.T) {
	cachetest.TestActionCache(t, func(*testing.T) (cache.CAS, cache.ActionCache) {
		s := memory.New()
		return s, s
	})
}
