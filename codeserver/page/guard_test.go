package page

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

const rollbackPath, rollbackBody = "/api/locations/shop/rollback", `{"version":"2222222222222222222222222222222222222222222222222222222222222222","current":"1111111111111111111111111111111111111111111111111111111111111111"}`

// TestHost asks for the page by names that lead here: a name of somebody else's makes their page this one's origin.
func TestHost(t *testing.T) {
	c := newSite(t).caller()
	for _, host := range []string{"localhost", "LOCALHOST:80", "127.0.0.1:8983", "127.0.0.5", "[::1]", "[::1]:99"} {
		c.host = host
		c.says(http.StatusOK, http.MethodGet, "/", "")
	}
	for _, host := range []string{
		"evil.example", "evil.example:8983", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.1", "[::2]:1", "localhost:1@evil", "0.0.0.0",
	} {
		c.host = host
		for _, path := range []string{"/", "/assets/main.js", "/api/session", "/api/events"} {
			code := c.do(http.MethodGet, path, "").StatusCode
			require.Contains(t, []int{http.StatusMisdirectedRequest, http.StatusBadRequest}, code, host)
		}
	}
	// With TLS the certificate says whose name it is.
	c = newSite(t, func(o *Options) { o.TLS = true }).caller()
	c.host = "codeserver.internal"
	c.says(http.StatusOK, http.MethodGet, "/", "")
}

// TestForeignPages: what a browser sends for a page of another origin, on the same host or another.
func TestForeignPages(t *testing.T) {
	s := newSite(t)
	for _, site := range []string{"cross-site", "same-site"} {
		c := s.withKey()
		c.header["Sec-Fetch-Site"] = site
		for _, path := range []string{"/api/session", "/api/events", "/api/locations/shop/logs", "/api/locations/shop/history"} {
			c.says(http.StatusForbidden, http.MethodGet, path, "")
		}
		c.says(http.StatusForbidden, http.MethodPost, rollbackPath, rollbackBody)
		c.says(http.StatusOK, http.MethodGet, "/", "") // a link to it
	}
	for _, origin := range []string{"http://evil.example", "null", "http://127.0.0.1:1"} {
		c := s.withKey()
		c.header["Origin"] = origin
		c.says(http.StatusForbidden, http.MethodPost, rollbackPath, rollbackBody)
		c.says(http.StatusForbidden, http.MethodDelete, "/api/session", "")
	}
	// A form, and a request without the key that only the page can read, or with a wrong one.
	c := s.withKey()
	c.header["Content-Type"] = "application/x-www-form-urlencoded"
	c.says(http.StatusUnsupportedMediaType, http.MethodPost, rollbackPath, rollbackBody)
	for _, key := range []string{"", "wrong", s.withKey().key + "x", strings.Repeat("k", 10_000)} {
		c := s.caller()
		c.key = key
		c.says(http.StatusForbidden, http.MethodPost, rollbackPath, rollbackBody)
	}
	require.Empty(t, s.fake.rolled)
	c = s.withKey()
	c.header["Origin"], c.header["Sec-Fetch-Site"] = s.URL, "same-origin"
	c.says(http.StatusOK, http.MethodPost, rollbackPath, rollbackBody)
	require.Len(t, s.fake.rolled, 1)
	require.NotEqual(t, s.withKey().key, newSite(t).withKey().key, "each codeserver has keys of its own")
}

// TestPaths tries other ways to write paths, other methods, and bodies that are too large.
func TestPaths(t *testing.T) {
	c := newSite(t).withKey()
	for _, path := range []string{
		"/assets/..%2fpage.go", "/assets/%2e%2e%2fpage.go", "/assets/..%5cpage.go", "/assets/", "/assets/none.js", "/assets/main.js/",
		"/assets/sub/main.js", "/page.go", "/index.html", "/api", "/api/", "/api/locations", "/api/locations/shop", "/.git/config",
		"/api/locations/%2e%2e/history", "/api/locations/..%2fshop/history", "/api/locations/shop%2f..%2fweb/history",
		"/api/locations/shop%00/history", "/api/locations/SHOP/history", "/api/locations/*/history", "/api/locations/%00/logs",
	} {
		resp := c.do(http.MethodGet, path, "")
		require.Equal(t, http.StatusNotFound, resp.StatusCode, path)
	}
	for _, path := range []string{"/assets/../../etc/passwd", "/api/locations/../session"} {
		resp := c.do(http.MethodGet, path, "")
		require.Contains(t, []int{http.StatusNotFound, http.StatusTemporaryRedirect, http.StatusMovedPermanently}, resp.StatusCode, path)
		require.NotContains(t, resp.Header.Get("Location"), "//")
	}
	for _, m := range []struct{ method, path string }{
		{http.MethodPost, "/"},
		{http.MethodPut, "/api/session"},
		{http.MethodPost, "/api/events"},
		{http.MethodGet, rollbackPath},
		{http.MethodDelete, "/assets/main.js"},
		{"TRACE", "/"},
		{"CONNECT", "/api/session"},
		{http.MethodPost, "/api/locations/shop/logs"},
	} {
		code := c.do(m.method, m.path, "").StatusCode
		require.Contains(t, []int{http.StatusMethodNotAllowed, http.StatusNotFound}, code, "%v", m)
	}
	large := `{"version":"` + strings.Repeat("2", maxBody) + `"}`
	c.says(http.StatusRequestEntityTooLarge, http.MethodPost, rollbackPath, large)
	c.header["X-Large"] = strings.Repeat("x", 2<<20)
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, c.do(http.MethodGet, "/", "").StatusCode)
}

// TestHostileText: nothing that a location, a log or an error says looks like HTML, or like an event of its own.
func TestHostileText(t *testing.T) {
	s := newSite(t)
	s.fake.set(func(f *fake) {
		v := version(hostile, "FAILED")
		v.Error, v.Isolation = hostile, []string{hostile}
		v.Spec.Env, v.Spec.Secrets, v.Spec.Python = map[string]string{hostile: "x"}, []string{hostile}, hostile
		f.locations = []*codeserverpb.Location{{Name: hostile, Current: hostile, Channel: hostile, ChannelError: hostile, Versions: []*codeserverpb.Version{v}}}
		f.lines = []string{hostile, hostile}
	})
	s.page.feed.look(t.Context(), true)
	c := s.withKey()
	next := eventsOf(t, c.do(http.MethodGet, "/api/events", ""))
	e, ok := next()
	require.True(t, ok)
	require.Equal(t, "state", e.kind)
	require.NotContains(t, e.data, "<")
	var v stateView
	require.NoError(t, json.Unmarshal([]byte(e.data), &v))
	require.Equal(t, hostile, v.Locations[0].Versions[0].Error)

	s.fake.set(func(f *fake) { f.locations[0].Name = "shop" })
	next = eventsOf(t, c.do(http.MethodGet, "/api/locations/shop/logs", ""))
	e, ok = next()
	require.True(t, ok)
	require.Equal(t, "lines", e.kind)
	require.NotContains(t, e.data, "<")
	e, ok = next()
	require.True(t, ok)
	require.Equal(t, event{"end", `{"error":""}`}, e, "the lines have made no event of their own")

	for _, path := range []string{"/api/locations/%3Cscript%3E/history", "/api/locations/%3Cscript%3E/logs", "/api/locations/shop/logs?version=%3Cscript%3E"} {
		resp := c.do(http.MethodGet, path, "")
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, resp.StatusCode)
		require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
		require.NotContains(t, string(b), "<script")
	}
}

// TestSlowBrowser opens pages that take nothing: they are dropped, and others do not notice.
func TestSlowBrowser(t *testing.T) {
	s := newSite(t)
	s.page.patience = 200 * time.Millisecond
	s.fake.follow = true
	s.fake.set(func(f *fake) {
		f.lines = nil
		for range 5000 {
			f.lines = append(f.lines, strings.Repeat("x", 4000))
		}
		f.locations[0].GetVersions()[0].Error = strings.Repeat("x", 4<<20)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			s.page.feed.look(ctx, false)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for _, path := range []string{"/api/events", "/api/locations/web/logs"} {
		for range 5 {
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
			require.NoError(t, err)
		}
	}
	watched := func() int {
		s.page.feed.mu.Lock()
		defer s.page.feed.mu.Unlock()
		return len(s.page.feed.watchers)
	}
	began := false
	require.Eventually(t, func() bool {
		began = began || watched() > 0 && len(s.page.readers) > 0
		return began && watched() == 0 && len(s.page.readers) == 0
	}, 60*time.Second, 5*time.Millisecond, "those who take nothing are dropped")
	require.Len(t, s.caller().state().Locations, 2)
}

// TestBounds opens more than are allowed.
func TestBounds(t *testing.T) {
	s := newSite(t)
	for range maxWatchers {
		_, stop, err := s.page.feed.watch()
		require.NoError(t, err)
		defer stop()
	}
	for range maxReaders {
		s.page.readers <- struct{}{}
	}
	c := s.caller()
	require.Contains(t, c.says(http.StatusServiceUnavailable, http.MethodGet, "/api/events", ""), "too many pages")
	require.Contains(t, c.says(http.StatusServiceUnavailable, http.MethodGet, "/api/locations/shop/logs", ""), "too many logs")
}

// TestRollbackGoesOn: one whose browser goes away is not left half way.
func TestRollbackGoesOn(t *testing.T) {
	s := newSite(t)
	s.fake.hold = make(chan struct{})
	c := s.withKey()
	resp := c.do(http.MethodPost, rollbackPath, rollbackBody)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
	s.CloseClientConnections()
	close(s.fake.hold)
	require.Equal(t, two, (<-s.fake.rolled).GetVersion())
}

// TestSlowBody has clients begin a body that they do not end, whether or not somebody reads it: their connections end.
func TestSlowBody(t *testing.T) {
	p := newSite(t).page
	for _, path := range []string{"/", "/none", "/api/session", rollbackPath} {
		server := httptest.NewServer(whole(50*time.Millisecond, p.guard(http.NotFoundHandler())))
		defer server.Close()
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{", path)
		require.NoError(t, err)
		said, err := io.ReadAll(conn)
		require.NoError(t, err, "it ends")
		require.Contains(t, string(said), "408 Request Timeout")
	}
}
