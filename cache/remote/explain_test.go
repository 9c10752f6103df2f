package remote_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/remote"
)

// TestNobodyListens: each kind of call names the cache and what to do, once, and without a password of the address.
func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	c, err := remote.Dial(t.Context(), "grpc://me:secret@"+l.Addr().String()+"/main")
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	d := digest.FromBytes(make([]byte, 2<<20))
	_, find := c.FindMissing(t.Context(), []digest.Digest{d})
	_, result := c.GetActionResult(t.Context(), d)
	_, put := cache.PutBlob(t.Context(), c, make([]byte, 2<<20))
	_, small := cache.PutBlob(t.Context(), c, []byte("x"))
	_, get := c.Get(t.Context(), d)
	for _, err := range []error{find, result, put, small, get} {
		var e *remote.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.Equal(t, "cache grpc://me:xxxxx@"+l.Addr().String()+"/main: nothing listens there: is the server running? Another address: PEXPRESS_CACHE or --cache", e.Error())
	}
}

func TestExplain(t *testing.T) {
	for text, c := range map[string]struct {
		code codes.Code
		want string
	}{
		"error reading server preface: EOF":                                                     {codes.Unavailable, "write grpcs:// for grpc://"},
		"authentication handshake failed: tls: first record does not look like a TLS handshake": {codes.Unavailable, "write grpc:// for grpcs://"},
		"x509: certificate signed by unknown authority":                                         {codes.Unavailable, "PEXPRESS_CACHE_CA"},
		"error reading from server: EOF":                                                        {codes.Unavailable, "the connection broke off: run the command again"},
		"credentials refused: none were shown: send a token":                                    {codes.Unauthenticated, "set PEXPRESS_CACHE_TOKEN, or"},
		"credentials refused: no one knows the token":                                           {codes.Unauthenticated, "the token is what PEXPRESS_CACHE_TOKEN holds"},
		`token:r has no write-cas right to instance "main"`:                                     {codes.PermissionDenied, "hits can be read"},
		`instance "x": the configuration has no such instance`:                                  {codes.InvalidArgument, `the server has no instance "x"`},
		"put blob ab/1: put blob ab/1: instance holds 1":                                        {codes.ResourceExhausted, "instance holds 1"},
	} {
		require.Contains(t, remote.Explain("grpc://h:1", c.code, text), c.want, text)
	}
	require.Empty(t, remote.Explain("grpc://h:1", codes.Internal, "x"))
}
