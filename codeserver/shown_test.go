package codeserver

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestRestartIsShown has a version started again while it serves: the process that serves is shown first, before and after.
func TestRestartIsShown(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	app := webApp("one")
	app["app/word.py"] += fmt.Sprintf("import os, time\nflag = %q\nif os.path.exists(flag): time.sleep(2)\nopen(flag, 'w').close()\n", filepath.Join(t.TempDir(), "flag"))
	h.deploy(h.spec(app))
	before := h.version("web").GetPid()
	done := make(chan error, 1)
	go func() {
		_, err := h.anew()
		done <- err
	}()
	var now []*codeserverpb.Version
	eventually(t, func() bool {
		now = h.s.messages("web")[0].GetVersions()
		return len(now) == 2 && now[1].GetPid() != 0
	}, "the next process is started")
	require.Equal(t, now[0].GetName(), now[1].GetName())
	require.Equal(t, codeserverpb.State_READY, now[0].GetState())
	require.Equal(t, before, now[0].GetPid())
	require.Equal(t, codeserverpb.State_STARTING, now[1].GetState())
	require.EqualValues(t, 1, h.scrape().of("codeserver_ready", "location", "web").GetGauge().GetValue())
	require.NoError(t, <-done)
	require.NotEqual(t, before, h.s.messages("web")[0].GetVersions()[0].GetPid())
}

// TestShown: the current version comes before others of its name, and all else stays newest first.
func TestShown(t *testing.T) {
	now, next, drains := &version{name: "a", err: "now"}, &version{name: "a", err: "next"}, &version{name: "a", err: "drains"}
	other, old := &version{name: "b"}, &version{name: "c"}
	l := &location{current: now, loading: []*version{other, next}, versions: []*version{old, now, drains}}
	require.Equal(t, []*version{other, now, next, old, drains}, l.shown())
	require.Equal(t, []*version{old, now, drains}, l.versions)
	l.current = nil
	require.Equal(t, []*version{other, next, old, now, drains}, l.shown())
}
