package page

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/compare"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestAssets looks at what the browser is given: nothing of it comes from elsewhere, or makes markup of text.
func TestAssets(t *testing.T) {
	c := newSite(t).caller()
	require.Contains(t, c.says(http.StatusOK, http.MethodGet, "/", ""), "<title>codeserver</title>")
	for name, a := range assets {
		resp := c.do(http.MethodGet, "/assets/"+name, "")
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.NotEmpty(t, a.kind, "%s is of a kind that is not served", name)
		require.Equal(t, a.kind, resp.Header.Get("Content-Type"))
		require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
		require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'")
		require.NotContains(t, resp.Header.Get("Content-Security-Policy"), "unsafe")
		c.header["If-None-Match"] = resp.Header.Get("ETag")
		require.Empty(t, c.says(http.StatusNotModified, http.MethodGet, "/assets/"+name, ""))
		delete(c.header, "If-None-Match")
		for _, bad := range []string{
			"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "https://", "//cdn",
			"@import", "url(", " style=\"", "<script>", "onclick=", "setTimeout('",
		} {
			require.NotContains(t, string(b), bad, name)
		}
		require.Equal(t, strings.Count(string(b), "http://"), strings.Count(string(b), "http://www.w3.org/2000/svg"), name)
	}
}

// TestState: what the page shows, without the values of variables.
func TestState(t *testing.T) {
	s := newSite(t)
	s.fake.set(func(f *fake) {
		f.locations[0].Failure = &codeserverpb.Failure{Version: two, Error: "no good"}
		f.locations[0].ListenError = "it is taken"
		f.locations[0].Versions[0].LastEnding = &codeserverpb.Ending{Time: timestamppb.New(time.Unix(1e9, 0)), Reason: "status 4"}
	})
	s.page.feed.look(t.Context(), true)
	v := s.withKey().state()
	require.Len(t, v.Locations, 2)
	l := v.Locations[0]
	require.Equal(t, "shop", l.Name)
	require.Equal(t, two, l.Previous)
	require.Equal(t, "no good", l.Failure.Error)
	require.Equal(t, "it is taken", l.ListenError)
	require.True(t, l.MayRollback)
	require.Equal(t, "ready", l.Versions[0].State)
	require.Equal(t, &endingView{time.Unix(1e9, 0).UTC(), "status 4"}, l.Versions[0].LastEnding)
	require.Nil(t, l.Versions[1].LastEnding)
	require.Equal(t, []string{"PASSWORD"}, l.Versions[0].Variables)
	require.InDelta(t, 1.5, *l.Versions[0].Usage.P50, 0)
	require.Nil(t, l.Versions[0].Usage.P99)
	require.Equal(t, []stageView{{"ready", 1000, 5, 0}}, l.Versions[0].Stages)
	require.EqualValues(t, 2<<20, l.Last.Memory)
	b, err := json.Marshal(v)
	require.NoError(t, err)
	require.NotContains(t, string(b), "hush")
}

// TestChangesAreSent: what has changed reaches those who look, and each gets its own.
func TestChangesAreSent(t *testing.T) {
	s := newSite(t)
	next := eventsOf(t, s.caller().do(http.MethodGet, "/api/events", ""))
	for _, want := range []string{one, two, one} {
		s.fake.set(func(f *fake) {
			f.locations = []*codeserverpb.Location{{Name: "shop", Current: want, Versions: f.locations[0].GetVersions()}}
		})
		s.fake.changes <- struct{}{}
		for {
			e, ok := next()
			require.True(t, ok)
			var v stateView
			require.NoError(t, json.Unmarshal([]byte(e.data), &v))
			if v.Locations[0].Current == want {
				break
			}
		}
	}
}

// TestHistory fills a history beyond its end.
func TestHistory(t *testing.T) {
	var s series
	at := time.Unix(2e9, 0)
	l := &codeserverpb.Location{Versions: []*codeserverpb.Version{version(one, "READY")}}
	u := l.GetVersions()[0].GetUsage()
	s.add(at, l)
	require.Zero(t, s.points[0].CPU, "how long it took to use that is not known")
	for range keep + 10 {
		at = at.Add(step)
		u.Cpu.Seconds += 2
		u.Requests += 10
		s.add(at, l)
	}
	require.Len(t, s.points, keep)
	last := s.points[keep-1]
	require.Equal(t, point{Time: at.UnixMilli(), Memory: 1 << 20, CPU: 0.4, Requests: 2}, last)

	u.Cpu.Seconds, u.Requests, u.FailedRequests = 1, 5, 5 // the version was deployed anew
	s.add(at.Add(step), l)
	last = s.points[keep-1]
	require.Zero(t, last.CPU)
	require.Zero(t, last.Requests)
	require.InDelta(t, 1, last.Failed, 1e-9)

	late := version(two, "READY") // deployed long ago, and measured for the first time
	l.Versions = append(l.Versions, late)
	s.add(at.Add(2*step), l)
	require.Zero(t, s.points[keep-1].CPU)
	late.Name, late.DeployedAt.Seconds = "3", at.Add(2*step).Unix()+1
	s.add(at.Add(3*step), l)
	require.InDelta(t, 0.2, s.points[keep-1].CPU, 1e-9, "a version that came since the last look used all of it since")
}

func TestHistoryEndpoint(t *testing.T) {
	c := newSite(t).withKey()
	var h struct{ Points []point }
	c.json(http.StatusOK, &h, http.MethodGet, "/api/locations/shop/history", "")
	require.NotEmpty(t, h.Points)
	c.says(http.StatusNotFound, http.MethodGet, "/api/locations/other/history", "")
	c.fake.set(func(f *fake) { f.locations = f.locations[1:] })
	c.page.feed.look(t.Context(), true)
	c.says(http.StatusNotFound, http.MethodGet, "/api/locations/shop/history", "")
}

// TestCompare compares two versions whose trees are in a cache.
func TestCompare(t *testing.T) {
	cas := memory.New()
	tree := func(files map[string]string) *repb.Digest {
		var b merkle.Builder
		for path, content := range files {
			d, err := cache.PutBlob(t.Context(), cas, []byte(content))
			require.NoError(t, err)
			require.NoError(t, b.File(path, d))
		}
		tr, err := b.Build()
		require.NoError(t, err)
		require.NoError(t, tr.Put(t.Context(), cas))
		return tr.Root().Proto()
	}
	s := newSite(t, func(o *Options) { o.Trees = cas })
	many := map[string]string{}
	for i := range maxFiles + 7 {
		many["f/"+strings.Repeat("x", i%50)+string(rune('a'+i%26))+time.Duration(i).String()] = "1"
	}
	s.fake.set(func(f *fake) {
		v := f.locations[0].GetVersions()
		v[0].Spec = &codeserverpb.VersionSpec{DepsRoot: tree(map[string]string{".deps/lib-2-py3-none-any.whl": "22"}), SourceRoot: tree(many), Python: "3.12"}
		v[1].Spec = &codeserverpb.VersionSpec{DepsRoot: tree(map[string]string{".deps/lib-1-py3-none-any.whl": "1"}), SourceRoot: tree(nil), Python: "3.11"}
	})
	c := s.withKey()
	path := "/api/locations/shop/compare?from=" + two + "&to=" + one
	var v changesView
	c.json(http.StatusOK, &v, http.MethodGet, path, "")
	require.Equal(t, []compare.Wheel{{Name: "lib", Kind: compare.Changed, From: "1", To: "2", Before: 1, After: 2}}, v.Wheels)
	require.Equal(t, []compare.Setting{{Name: "python", Before: "3.11", After: "3.12", Kind: compare.Changed}}, v.Settings)
	require.Len(t, v.Trees, 1)
	require.Len(t, v.Trees[0].Files, maxFiles)
	require.Equal(t, 7, v.Trees[0].More)

	c.says(http.StatusNotFound, http.MethodGet, "/api/locations/web/compare?from="+two+"&to="+one, "")
	c.says(http.StatusBadRequest, http.MethodGet, "/api/locations/shop/compare?from="+two, "")
	s.fake.set(func(f *fake) { f.locations[0].GetVersions()[1].GetSpec().SourceRoot = root("a") })
	require.Contains(t, c.says(http.StatusNotFound, http.MethodGet, path, ""), "neither on this host nor in the cache")
}

func TestLogs(t *testing.T) {
	s := newSite(t)
	c := s.withKey()
	read := func(query string) (all []lineView, end string) {
		next := eventsOf(t, c.do(http.MethodGet, "/api/locations/shop/logs?"+query, ""))
		for {
			e, ok := next()
			if !ok {
				return all, end
			}
			if e.kind == "end" {
				end = e.data
				continue
			}
			var lines []lineView
			require.NoError(t, json.Unmarshal([]byte(e.data), &lines))
			all = append(all, lines...)
		}
	}
	all, end := read("")
	require.Len(t, all, 2)
	require.Equal(t, "second", all[1].Text)
	require.EqualValues(t, 1e9, all[1].Time.Unix())
	require.JSONEq(t, `{"error":""}`, end)

	// Many lines come in few events, all of them and in order.
	s.fake.lines = nil
	for i := range 20_000 {
		s.fake.lines = append(s.fake.lines, time.Duration(i).String())
	}
	all, _ = read("version=" + two)
	require.Len(t, all, 20_000)
	for i, l := range all {
		require.Equal(t, s.fake.lines[i], l.Text)
	}
	for _, bad := range []string{"tail=0", "tail=x", "tail=5001", "tail=-1"} {
		c.says(http.StatusBadRequest, http.MethodGet, "/api/locations/shop/logs?"+bad, "")
	}
	c.says(http.StatusNotFound, http.MethodGet, "/api/locations/shop/logs?version=1", "")
	c.says(http.StatusNotFound, http.MethodGet, "/api/locations/none/logs", "")
}

// TestRollback follows one, and one that fails.
func TestRollback(t *testing.T) {
	s := newSite(t)
	c := s.withKey()
	ask := func() (all []event) {
		next := eventsOf(t, c.do(http.MethodPost, "/api/locations/shop/rollback", `{"version":"`+two+`","current":"`+one+`"}`))
		for {
			e, ok := next()
			if !ok {
				return all
			}
			all = append(all, e)
		}
	}
	require.Equal(t, []event{{"stage", `{"name":"ready","took":0,"bytes":0,"blobs":0}`}, {"end", `{"error":""}`}}, ask())
	r := <-s.fake.rolled
	require.Equal(t, "shop", r.GetLocation())
	require.Equal(t, two, r.GetVersion())
	require.Equal(t, one, r.GetIfCurrent(), "what was shown when it was confirmed")

	s.fake.rollback = errNotReady
	all := ask()
	<-s.fake.rolled
	var end map[string]string
	require.NoError(t, json.Unmarshal([]byte(all[len(all)-1].data), &end))
	require.Equal(t, "the version did not become ready: "+hostile, end["error"])

	for body, code := range map[string]int{
		`{"version":"` + two + `","current":"` + two + `"}`:           http.StatusConflict, // another serves by now
		`{"version":"` + two + `"}`:                                   http.StatusConflict,
		`{"version":"","current":"` + one + `"}`:                      http.StatusBadRequest,
		`{"version":"2","current":"` + one + `"}`:                     http.StatusNotFound, // no prefixes
		`{"version":"` + two + `","current":"` + one + `","force":1}`: http.StatusBadRequest,
		`{"version":"` + two + `","current":"` + one + `"} {}`:        http.StatusBadRequest,
		`[]`: http.StatusBadRequest,
	} {
		c.says(code, http.MethodPost, "/api/locations/shop/rollback", body)
	}
	c.says(http.StatusNotFound, http.MethodPost, "/api/locations/none/rollback", `{"version":"`+two+`","current":"`+one+`"}`)
	require.Empty(t, s.fake.rolled, "what is refused calls nothing")
}
