package codeserver

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache/digest"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// newSpec returns good code with a word of its own, in the cache.
func (c *chaos) newSpec() *codeserverpb.VersionSpec {
	c.next++
	return c.spec("word"+strconv.Itoa(c.next), nil)
}

func (c *chaos) spec(word string, change map[string]string) *codeserverpb.VersionSpec {
	app := webApp(word)
	app["app/word.py"] += "import dep\nassert dep.N >= 0\n"
	for path, content := range change {
		app[path] = content
	}
	n := c.random.IntN(3)
	w := wheel(c.t, "dep", member{name: "dep.py", content: fmt.Sprintf("N = %d\n", n)})
	s := makeSpec(c.t, c.cas, app, func(s *codeserverpb.VersionSpec) {
		s.DepsRoot = depsTree(c.t, c.cas, map[string][]byte{"dep-1.0-py3-none-any.whl": w}).Proto()
	})
	_, name, err := digest.Marshal(s)
	require.NoError(c.t, err)
	c.words[name.Hash()] = word
	return s
}

// goodSpec returns a spec of good code, nil if there is none to be had.
func (c *chaos) goodSpec() *codeserverpb.VersionSpec {
	if c.cacheThere() {
		return c.newSpec()
	}
	if len(c.reserve) == 0 {
		return nil
	}
	s := c.reserve[0]
	c.reserve = c.reserve[1:]
	return s
}

func (c *chaos) wordOf(s *codeserverpb.VersionSpec) string {
	_, name, err := digest.Marshal(s)
	require.NoError(c.t, err)
	return c.words[name.Hash()]
}

func (c *chaos) send(p *place, s *codeserverpb.VersionSpec, ready time.Duration) (*codeserverpb.Deployed, error) {
	limit := patience
	if c.ills[cacheCut] > 0 {
		limit = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	return deployWith(ctx, c.Client, &codeserverpb.DeployRequest{Location: p.name, Spec: s, ReadyTimeout: durationpb.New(ready)})
}

func (c *chaos) deployGood(p *place) error {
	s := c.goodSpec()
	if s == nil {
		return nil
	}
	d, err := c.send(p, s, time.Minute)
	if err != nil {
		c.note("  %s", firstLine(err.Error()))
		return err
	}
	c.serves(p, c.wordOf(s))
	p.address = d.GetLocation().GetAddress()
	return nil
}

func (c *chaos) tryGood(p *place) {
	if err := c.deployGood(p); err != nil {
		require.True(c.t, c.impaired(), "good code is refused: %v", err)
		require.NotEmpty(c.t, status.Convert(err).Message())
		c.refused++
	}
}

// deployBroken deploys code that cannot serve, and is told why.
func (c *chaos) deployBroken(p *place) {
	if !c.cacheThere() {
		return
	}
	broken := []struct{ path, content, why string }{
		{"app/word.py", "WORD = (\n", "SyntaxError"},
		{"app/word.py", "import sys\nsys.exit(3)\n", "status 3"},
		{"app/word.py", "import time\ntime.sleep(600)\n", "not ready after"},
		{"app/__main__.py", strings.Replace(webMain, `int(os.environ["PORT"])`, "0", 1), "not ready after"},
	}
	b := broken[c.random.IntN(len(broken))]
	c.next++
	s := c.spec("broken"+strconv.Itoa(c.next), map[string]string{b.path: b.content})
	_, err := c.send(p, s, 3*time.Second)
	require.Error(c.t, err)
	if c.ills[diskFull] == 0 && !strings.Contains(err.Error(), "not ready after") { // it may be the machine that is slow
		require.ErrorContains(c.t, err, b.why)
	}
	require.Equal(c.t, codes.FailedPrecondition, status.Code(err), "%v", err)
	if p.good == "" && len(p.maybe) == 0 {
		p.address = ""
	}
}

func (c *chaos) deployTwo(p *place) {
	one, two := c.goodSpec(), c.goodSpec()
	if one == nil || two == nil {
		return
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var done []string
	for _, s := range []*codeserverpb.VersionSpec{one, two} {
		word := c.wordOf(s)
		wg.Go(func() {
			d, err := c.send(p, s, time.Minute)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done = append(done, word)
				p.address = d.GetLocation().GetAddress()
			} else if status.Code(err) != codes.Aborted && !c.impaired() {
				c.t.Errorf("good code is refused: %v", err)
			}
		})
	}
	wg.Wait()
	require.False(c.t, c.t.Failed())
	if len(done) == 0 {
		require.True(c.t, c.impaired(), "one of two is deployed")
		return
	}
	p.kills, p.good, p.maybe = 0, done[0], done[1:]
}

func (c *chaos) rollback(p *place) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	stream, err := c.Client.Rollback(ctx, &codeserverpb.RollbackRequest{Location: p.name})
	var d *codeserverpb.Deployed
	for err == nil && d == nil {
		var ev *codeserverpb.DeployEvent
		if ev, err = stream.Recv(); err == nil {
			d = ev.GetDeployed()
		}
	}
	if err != nil {
		c.note("  %s", firstLine(err.Error()))
		message := status.Convert(err).Message()
		require.True(c.t, c.impaired() || strings.Contains(message, "served no other version before") || strings.Contains(message, "has no version that it goes back to") || p.good == "", "%v", err)
		return
	}
	word := c.words[d.GetLocation().GetCurrent()]
	require.Contains(c.t, word, "word")
	c.serves(p, word)
}

func (c *chaos) remove(p *place) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	_, err := c.Remove(ctx, &codeserverpb.RemoveRequest{Location: p.name})
	if err != nil {
		c.note("  %s", firstLine(err.Error()))
		require.True(c.t, c.impaired() || p.good == "", "%v", err)
		return
	}
	p.good, p.maybe, p.address = "", nil, ""
	require.Nil(c.t, c.list(p))
}
