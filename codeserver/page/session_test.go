package page

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/auth"
)

const grants = `
[[grant]]
locations = ["shop"]
read = ["token:viewer"]
rollback = ["token:operator"]
[[grant]]
locations = ["web"]
deploy = ["token:other"]
`

type tokens struct {
	t     *testing.T
	file  string
	lines map[string]string
	of    map[string]string
}

func newTokens(t *testing.T, names ...string) *tokens {
	k := &tokens{t, filepath.Join(t.TempDir(), "tokens"), map[string]string{}, map[string]string{}}
	for _, n := range names {
		var err error
		k.of[n], k.lines[n], err = auth.NewToken(n)
		require.NoError(t, err)
	}
	k.write()
	return k
}

func (k *tokens) write() {
	all := ""
	for _, l := range k.lines {
		all += l + "\n"
	}
	require.NoError(k.t, os.WriteFile(k.file, []byte(all), 0o600))
}

// signedIn returns a caller with a session.
func (s *site) signedIn(token string) *caller {
	s.t.Helper()
	c := s.caller()
	resp := c.do(http.MethodPost, "/api/session", `{"token":"`+token+`"}`)
	require.Equal(s.t, http.StatusOK, resp.StatusCode)
	require.Len(s.t, resp.Cookies(), 1)
	c.cookie = resp.Cookies()[0]
	var v sessionView
	require.NoError(s.t, json.NewDecoder(resp.Body).Decode(&v))
	c.key = v.Key
	return c
}

// TestSessions signs in, and tries to get by without.
func TestSessions(t *testing.T) {
	k := newTokens(t, "viewer", "operator", "other", "stranger")
	s := newSite(t, guarded(t, k.file, grants))
	nobody := s.caller()
	for _, path := range []string{"/api/session", "/api/events", "/api/locations/shop/history", "/api/locations/shop/logs", "/api/locations/shop/compare"} {
		require.Contains(t, nobody.says(http.StatusUnauthorized, http.MethodGet, path, ""), "error")
	}
	nobody.says(http.StatusUnauthorized, http.MethodPost, rollbackPath, rollbackBody)
	for _, token := range []string{"", "wrong", k.of["viewer"] + "x", strings.Repeat("x", 17<<10)} {
		require.NotContains(t, nobody.says(http.StatusUnauthorized, http.MethodPost, "/api/session", `{"token":"`+token+`"}`), "xxxx")
	}
	nobody.says(http.StatusRequestEntityTooLarge, http.MethodPost, "/api/session", `{"token":"`+strings.Repeat("x", maxBody)+`"}`)
	nobody.header["Origin"] = "http://evil.example"
	nobody.says(http.StatusForbidden, http.MethodPost, "/api/session", `{"token":"`+k.of["viewer"]+`"}`)

	viewer := s.signedIn(k.of["viewer"])
	require.True(t, viewer.cookie.HttpOnly)
	require.Equal(t, http.SameSiteStrictMode, viewer.cookie.SameSite)
	require.Equal(t, "/", viewer.cookie.Path)
	require.False(t, viewer.cookie.Secure, "there is no TLS here")
	require.NotEqual(t, viewer.key, viewer.cookie.Value)
	v := viewer.state()
	require.Len(t, v.Locations, 1, "only what may be read is shown")
	require.False(t, v.Locations[0].MayRollback)
	viewer.says(http.StatusNotFound, http.MethodGet, "/api/locations/web/history", "")
	viewer.says(http.StatusNotFound, http.MethodGet, "/api/locations/web/logs", "")
	viewer.says(http.StatusNotFound, http.MethodGet, "/api/locations/web/compare?from="+one+"&to="+one, "")
	viewer.says(http.StatusForbidden, http.MethodPost, rollbackPath, rollbackBody)
	require.Empty(t, s.fake.rolled)

	operator := s.signedIn(k.of["operator"])
	require.True(t, operator.state().Locations[0].MayRollback)
	operator.says(http.StatusOK, http.MethodPost, rollbackPath, rollbackBody)
	require.Len(t, s.fake.rolled, 1)
	other := s.signedIn(k.of["other"])
	other.says(http.StatusNotFound, http.MethodPost, rollbackPath, rollbackBody)
	require.Empty(t, s.signedIn(k.of["stranger"]).state().Locations)

	// Each half is nothing without the other: the cookie is sent to every port of the host.
	half := s.caller()
	half.cookie = operator.cookie
	half.says(http.StatusUnauthorized, http.MethodGet, "/api/session", "")
	half.key = viewer.key
	half.says(http.StatusUnauthorized, http.MethodGet, "/api/events", "")
	half = s.caller()
	half.key = operator.key
	half.says(http.StatusUnauthorized, http.MethodPost, rollbackPath, rollbackBody)

	operator.says(http.StatusNoContent, http.MethodDelete, "/api/session", "")
	operator.says(http.StatusUnauthorized, http.MethodGet, "/api/session", "")
	viewer.says(http.StatusOK, http.MethodGet, "/api/session", "")

	// A token that is revoked ends its sessions, also those that are being sent something.
	next := eventsOf(t, viewer.do(http.MethodGet, "/api/events", ""))
	_, ok := next()
	require.True(t, ok)
	delete(k.lines, "viewer")
	k.write()
	s.page.feed.look(t.Context(), true)
	for ok {
		_, ok = next()
	}
	viewer.says(http.StatusUnauthorized, http.MethodGet, "/api/session", "")
	require.Len(t, s.page.sessions.all, 2, "of other and stranger")
}

// TestSecureCookie: over TLS the cookie is for TLS alone, and other hosts of the domain cannot set it.
func TestSecureCookie(t *testing.T) {
	k := newTokens(t, "viewer")
	c := newSite(t, guarded(t, k.file, grants), func(o *Options) { o.TLS = true }).signedIn(k.of["viewer"])
	require.True(t, c.cookie.Secure)
	require.True(t, strings.HasPrefix(c.cookie.Name, "__Host-"))
	require.Empty(t, c.cookie.Domain)
}

// TestAnonymous: who shows nothing sees what anonymous may, and a session that is over is nothing.
func TestAnonymous(t *testing.T) {
	k := newTokens(t, "operator")
	s := newSite(t, guarded(t, k.file, "[[grant]]\nlocations = [\"web\"]\nread = [\"anonymous\"]\n"+grants))
	c := s.withKey()
	require.Len(t, c.state().Locations, 1)
	require.False(t, c.state().Locations[0].MayRollback)
	c.says(http.StatusNotFound, http.MethodPost, rollbackPath, rollbackBody)
	in := s.signedIn(k.of["operator"])
	require.Equal(t, "shop", in.state().Locations[0].Name)
	s.page.sessions.all = map[[32]byte]*session{}
	require.Equal(t, "web", in.state().Locations[0].Name)
}

// TestSessionBounds: sessions end, and there are not more than so many.
func TestSessionBounds(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newSessions(func() time.Time { return now })
	id, key, err := s.begin("t", "token:a")
	require.NoError(t, err)
	require.NotNil(t, s.find(id, key))
	require.Nil(t, s.find(id, key+"x"))
	require.Nil(t, s.find(key, id))
	for range 10 {
		now = now.Add(sessionIdle - time.Minute)
		if now.Sub(time.Unix(1e9, 0)) < sessionLife {
			require.NotNil(t, s.find(id, key), "one that is used goes on")
		}
	}
	require.Nil(t, s.find(id, key), "but not for ever")
	id, key, err = s.begin("t", "token:a")
	require.NoError(t, err)
	now = now.Add(sessionIdle + time.Minute)
	require.Nil(t, s.find(id, key), "one that is not used ends")

	first, firstKey, err := s.begin("t", "token:a")
	require.NoError(t, err)
	for range maxOwn {
		now = now.Add(time.Second)
		_, _, err := s.begin("t", "token:a")
		require.NoError(t, err)
	}
	require.Nil(t, s.find(first, firstKey), "the oldest of one's own gives way")
	require.Len(t, s.all, maxOwn)
	for i := range maxSessions - maxOwn {
		_, _, err := s.begin("t", fmt.Sprint("token:", i))
		require.NoError(t, err)
	}
	_, _, err = s.begin("t", "token:new")
	require.ErrorIs(t, err, errSessions)
	now = now.Add(sessionLife + time.Minute)
	_, _, err = s.begin("t", "token:new")
	require.NoError(t, err, "what is over makes room")
	require.Len(t, s.all, 1)
}
