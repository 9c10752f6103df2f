package codeserver

import (
	"context"
	"crypto/ed25519"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/memory"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestUnpublishedChannel: a channel that is not there, as one whose name is mistyped, is shown, although no location of it is
// known.
func TestUnpublishedChannel(t *testing.T) {
	t.Parallel()
	public, _, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	store := memory.New()
	h := newHost(t, func(o *Options) {
		o.Channels = Channels{
			Follow: []Follow{{Channel: "prdo"}}, Keys: []ed25519.PublicKey{public}, Every: time.Minute,
			Open: func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
				return store, store, io.NopCloser(nil), nil
			},
		}
	})
	eventually(t, func() bool { return len(h.s.messages("")) == 1 }, "it is shown")
	list, err := h.List(t.Context(), &codeserverpb.ListRequest{})
	require.NoError(t, err)
	l := list.GetLocations()[0]
	require.Equal(t, "prdo", l.GetChannel())
	require.Contains(t, l.GetChannelError(), "prdo")
	require.Empty(t, l.GetAddress())
	require.Equal(t, 0., h.scrape().value("codeserver_channel_followed", "location", "*", "channel", "prdo"))
}
