package s3_test

import (
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// open returns a node over the bucket that is closed with the test.
func open(t testing.TB, b s3.Bucket, o s3.Options) *s3.Store {
	t.Helper()
	s, err := s3.OpenBucket(t.Context(), b, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func connect(t testing.TB, o s3.Options) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// fakeS3 returns options for an S3 server in this process.
func fakeS3(t testing.TB) s3.Options {
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("cache"))
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(srv.Close)
	return s3.Options{
		Bucket: "cache", Prefix: "some/where", Endpoint: srv.URL, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""), Manual: true,
	}
}

func conformance(t *testing.T, open func(t *testing.T) *s3.Store) {
	for _, fn := range digest.Functions {
		t.Run(fn.String(), func(t *testing.T) {
			cachetest.TestCASWith(t, fn, func(t *testing.T) cache.CAS { return open(t).Namespace("main") })
			cachetest.TestActionCacheWith(t, fn, func(t *testing.T) (cache.CAS, cache.ActionCache) {
				c := open(t).Namespace("main")
				return c, c
			})
		})
	}
}

func TestSimulated(t *testing.T) {
	conformance(t, func(t *testing.T) *s3.Store { return open(t, s3test.NewSim(time.Now), s3.Options{}) })
}

func TestOverHTTP(t *testing.T) {
	conformance(t, func(t *testing.T) *s3.Store { return connect(t, fakeS3(t)) })
}

func TestVersity(t *testing.T) {
	v := s3test.StartVersity(t)
	n := 0
	conformance(t, func(t *testing.T) *s3.Store {
		o := v.Options()
		n++
		o.Prefix = fmt.Sprint("test", n)
		return connect(t, o)
	})
}
