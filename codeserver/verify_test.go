package codeserver

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/cache"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/provenance"
)

// TestUntrusted has a server that trusts one key refuse what it has not signed, before it loads anything. What it has
// accepted stays: over a restart of the server, for a rollback, and for another process of it.
func TestUntrusted(t *testing.T) {
	t.Parallel()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	trusted, err := provenance.NewVerifier([]ed25519.PublicKey{pub})
	require.NoError(t, err)
	var opened atomic.Bool
	h := newHost(t, func(o *Options) {
		open := o.Open
		o.Verify, o.Open = trusted.Verify, func(ctx context.Context) (cache.CAS, io.Closer, error) {
			opened.Store(true)
			return open(ctx)
		}
	})
	request := func(location, app string, key ed25519.PrivateKey) *codeserverpb.DeployRequest {
		req := &codeserverpb.DeployRequest{Location: location, Spec: h.spec(webApp(app))}
		if key != nil {
			req.Provenance, err = provenance.Sign(t.Context(), key, provenance.Deploy{Location: location, Spec: req.GetSpec()})
			require.NoError(t, err)
		}
		return req
	}
	one := request("web", "one", priv)
	unsigned, forged, replayed := request("web", "one", nil), request("web", "one", stranger), request("web", "evil", nil)
	replayed.Provenance = one.GetProvenance()
	elsewhere := request("prod", "one", nil)
	elsewhere.Provenance = one.GetProvenance()
	for want, req := range map[string]*codeserverpb.DeployRequest{
		"pass --sign-key FILE":              unsigned,
		"no key that this codeserver":       forged,
		"it is for the version":             replayed,
		`it is for the location "web", not`: elsewhere,
	} {
		require.Contains(t, h.refused(codes.PermissionDenied, req), want)
	}
	require.False(t, opened.Load(), "nothing is loaded of what is not trusted")

	d, err := h.try(one)
	require.NoError(t, err)
	require.Equal(t, "one", h.get(d, "/"))
	_, err = h.try(request("web", "two", priv))
	require.NoError(t, err)
	h.refused(codes.PermissionDenied, replayed)
	h.restart()
	await(t, d.GetLocation().GetAddress(), "two")
	d, err = h.rollback("")
	require.NoError(t, err)
	require.Equal(t, "one", h.get(d, "/"))
	d, err = h.anew()
	require.NoError(t, err)
	require.Equal(t, "one", h.get(d, "/"))

	stream, err := h.Client.DeployAll(t.Context(), &codeserverpb.DeployAllRequest{
		Deploys: []*codeserverpb.DeployRequest{request("web", "three", priv), request("other", "x", nil)},
	})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.ErrorContains(t, err, "location other: the deploy is not trusted")
	require.Equal(t, "one", h.get(d, "/"))
}
