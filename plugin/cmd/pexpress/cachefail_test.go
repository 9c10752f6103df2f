package main

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/httpcache"
)

// TestSilentWebCache has an HTTP cache take connections and say nothing on them: the text is that of one that speaks gRPC.
func TestSilentWebCache(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	for _, scheme := range []string{"http", "https"} {
		transport := httpcache.Transport()
		require.Equal(t, time.Minute, transport.ResponseHeaderTimeout)
		transport.ResponseHeaderTimeout, transport.TLSHandshakeTimeout = 50*time.Millisecond, 50*time.Millisecond
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		a := &app{cache: scheme + "://" + l.Addr().String() + "/main"}
		c, err := httpcache.New(a.cache, &http.Client{Transport: transport}, nil)
		require.NoError(t, err)
		d := digest.FromBytes([]byte("x"))
		_, get := c.Get(t.Context(), d)
		for _, err := range []error{get, c.Put(t.Context(), d, bytes.NewReader([]byte("x")))} {
			err = a.cacheFailure(err)
			require.ErrorContains(t, err, "cache "+a.cache+": no answer in time: is the server stopped, overloaded or cut off?")
			require.Equal(t, exitUnavailable, exitCode(err))
			require.True(t, isCacheFailure(err))
		}
	}
}
