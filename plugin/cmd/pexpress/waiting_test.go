package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestReadiness: a terminal shows that versions are waited for when that takes long, in a line that passes; elsewhere nothing is shown.
func TestReadiness(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{ui: &ui{terminal: terminal, out: &out, err: &out}}
			r := &readiness{app: a, limit: time.Minute, pending: map[string]time.Time{}}
			until := func(d time.Duration) string {
				time.Sleep(d)
				synctest.Wait()
				a.ui.mu.Lock()
				defer a.ui.mu.Unlock()
				defer out.Reset()
				return out.String()
			}
			r.stage(&codeserverpb.Stage{Name: "start", Location: "web"})
			r.stage(&codeserverpb.Stage{Name: "fork", Location: "api"})
			require.Empty(t, until(time.Second))
			shown := until(2500 * time.Millisecond)
			r.stage(&codeserverpb.Stage{Name: "ready", Location: "api"})
			a.ui.warn("something else")
			other := until(2 * time.Second)
			r.stage(&codeserverpb.Stage{Name: "ready", Location: "web"})
			end := until(0)
			require.Empty(t, until(10*time.Second))
			r.close()
			if !terminal {
				require.Empty(t, shown+end)
				return
			}
			require.Equal(t, "waiting for api, web to become ready: 2s of 1m0s\r\x1b[Kwaiting for api, web to become ready: 3s of 1m0s", shown)
			require.True(t, strings.HasPrefix(other, "\r\x1b[Kwarning: something else\n"), "%q", other)
			require.Contains(t, other, "waiting for web to become ready: 5s of 1m0s")
			require.Equal(t, "\r\x1b[K", end)
		})
	}
}
