package httpcache_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/httpcache"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

func connect(t *testing.T, h http.Handler) *httpcache.Cache {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := httpcache.New(s.URL+"/team/", &http.Client{Transport: httpcache.Transport()}, http.Header{"X-Test": {"yes"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestConformance(t *testing.T) {
	for _, fn := range digest.Functions {
		t.Run(fn.String(), func(t *testing.T) {
			newCache := func(t *testing.T) *httpcache.Cache {
				m := memory.New()
				return connect(t, server.HTTP(server.Single(m, m)))
			}
			cachetest.TestCASWith(t, fn, func(t *testing.T) cache.CAS { return newCache(t) })
			cachetest.TestActionCacheWith(t, fn, func(t *testing.T) (cache.CAS, cache.ActionCache) {
				c := newCache(t)
				return c, c
			})
		})
	}
}

// TestOnlyNotFoundIsAMiss: whatever else the server says is an error, and no miss.
func TestOnlyNotFoundIsAMiss(t *testing.T) {
	code := 0
	c := connect(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "yes", r.Header.Get("X-Test"))
		http.Error(w, "so it says", code)
	}))
	d := digest.FromBytes([]byte("x"))
	for _, code = range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusNotFound} {
		_, get := c.Get(t.Context(), d)
		missing, find := c.FindMissing(t.Context(), []digest.Digest{d})
		_, result := c.GetActionResult(t.Context(), d)
		for _, err := range []error{get, result} {
			require.Equal(t, code == http.StatusNotFound, isMiss(err), "%v", err)
		}
		require.Equal(t, code == http.StatusNotFound, find == nil && len(missing) == 1)
		_, put := cache.PutBlob(t.Context(), c, []byte("x"))
		require.Error(t, put)
		require.False(t, isMiss(put))
		if code != http.StatusNotFound {
			require.ErrorContains(t, put, "so it says")
		}
	}
}

func isMiss(err error) bool { return errors.Is(err, cache.ErrNotFound) }

func TestAddresses(t *testing.T) {
	for _, address := range []string{"ftp://x", "https://", "http://x?y", "https://user:secret@x#y", ":"} {
		_, err := httpcache.New(address, http.DefaultClient, nil)
		require.Error(t, err, address)
		require.NotContains(t, err.Error(), "secret")
	}
}
