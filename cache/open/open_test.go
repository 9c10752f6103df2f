package open_test

import (
	"io/fs"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/open"
)

func TestDir(t *testing.T) {
	dir := t.TempDir()
	for _, address := range []string{dir, "file://" + dir} {
		got, ok := open.Dir(address)
		require.True(t, ok)
		require.Equal(t, dir, got)
		_, _, closer, err := open.Open(t.Context(), address)
		require.NoError(t, err)
		require.NoError(t, closer.Close())
	}
	require.FileExists(t, filepath.Join(dir, "CACHEDIR.TAG"), "backup programs pass over it")
}

// TestRefused holds addresses that look like something else and must not become directories.
func TestRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, address := range []string{
		"", "unix:tmp/x.sock", "unix://", "file:/tmp/x", "file://localhost/x", "file://relative", "http://", "https://host?x", "grpc:host", "s3://", "s3:bucket",
		"s3://bucket:1/x", "s3://bucket/x?instanc=y", "s3://user@bucket/x",
	} {
		_, _, _, err := open.Open(t.Context(), address)
		require.Error(t, err, address)
	}
	left, err := filepath.Glob("*")
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestTokensStayPrivate: a token in the environment is not sent where others can read it.
func TestTokensStayPrivate(t *testing.T) {
	t.Setenv("PEXPRESS_CACHE_TOKEN", "secret")
	_, _, _, err := open.Open(t.Context(), "grpc://cache.example:8980")
	require.ErrorContains(t, err, "in the clear: use grpcs://")
	require.NotContains(t, err.Error(), "secret")
	_, _, _, err = open.Open(t.Context(), "http://cache.example")
	require.ErrorContains(t, err, "in the clear: use https://")
	for _, address := range []string{"grpc://127.0.0.1:8980", "grpc://localhost:8980", "unix:///tmp/s", "unix:/tmp/s", "grpcs://cache.example:8980/main", "https://cache.example/main"} {
		_, _, closer, err := open.Open(t.Context(), address)
		require.NoError(t, err, address)
		require.NoError(t, closer.Close())
	}
}

func TestCertificates(t *testing.T) {
	t.Setenv("PEXPRESS_CACHE_CERT", "absent")
	_, _, _, err := open.Open(t.Context(), "grpcs://cache.example:8980")
	require.ErrorContains(t, err, "go together")
	t.Setenv("PEXPRESS_CACHE_KEY", "absent")
	_, _, _, err = open.Open(t.Context(), "grpcs://cache.example:8980")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestBucket(t *testing.T) {
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("bucket"))
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(srv.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": srv.URL, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1",
	} {
		t.Setenv(name, value)
	}
	cas, _, closer, err := open.Open(t.Context(), "s3://bucket/team?instance=main")
	require.NoError(t, err)
	d, err := cache.PutBlob(t.Context(), cas, []byte("x"))
	require.NoError(t, err)
	require.NoError(t, closer.Close())
	for address, there := range map[string]bool{"s3://bucket/team?instance=main": true, "s3://bucket/team": false, "s3://bucket/?instance=main": false} {
		cas, _, closer, err := open.Open(t.Context(), address)
		require.NoError(t, err)
		missing, err := cas.FindMissing(t.Context(), []digest.Digest{d})
		require.NoError(t, err)
		require.Equal(t, there, len(missing) == 0, address)
		require.NoError(t, closer.Close())
	}
}
