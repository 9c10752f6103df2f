package codeserver

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestAddressTaken: while somebody else answers on a location's address the location does not pass for one that serves, and
// the log says when it listens again.
func TestAddressTaken(t *testing.T) {
	t.Parallel()
	var again atomic.Bool
	h := newHost(t, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(io.MultiWriter(logWriter{t}, noteWriter{"a location listens again", &again}), nil))
	})
	address := h.deploy(h.spec(webApp("one"))).GetLocation().GetAddress()
	show := func() (ready float64, l *codeserverpb.Location) {
		r, err := h.List(t.Context(), &codeserverpb.ListRequest{})
		require.NoError(t, err)
		return h.scrape().value("codeserver_ready", "location", "web"), r.GetLocations()[0]
	}
	ready, l := show()
	require.Equal(t, 1., ready)
	require.Empty(t, l.GetListenError())

	h.close()
	taken, err := net.Listen("tcp", address)
	require.NoError(t, err)
	defer taken.Close()
	h.open()
	eventually(t, func() bool { return current(h.s.messages("web")[0]).GetState() == codeserverpb.State_READY }, "its version is up")
	ready, l = show()
	require.Equal(t, 0., ready)
	require.Contains(t, l.GetListenError(), "cannot listen on "+address)
	require.False(t, again.Load())

	require.NoError(t, taken.Close())
	await(t, address, "one")
	eventually(t, again.Load, "it is logged")
	ready, l = show()
	require.Equal(t, 1., ready)
	require.Empty(t, l.GetListenError())
}

// noteWriter notes whether a text was written.
type noteWriter struct {
	text string
	seen *atomic.Bool
}

func (w noteWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.seen.Store(true)
	}
	return len(p), nil
}
