package fetch

import (
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/plugin/lock"
)

func hashes(data string) map[string]string {
	long, weak := sha512.Sum512([]byte(data)), md5.Sum([]byte(data))
	return map[string]string{"sha512": strings.ToUpper(hex.EncodeToString(long[:])), "md5": hex.EncodeToString(weak[:])}
}

func TestCompletedOnce(t *testing.T) {
	clean(t)
	r, url := serve(t, content("data"))
	noSize, noSHA256 := wheel(url+"/size", "data"), wheel(url+"/sha256", "data")
	noSize.Size = 0
	noSHA256.SHA256, noSHA256.Hashes = "", hashes("data")
	for i, w := range []lock.Wheel{noSize, noSHA256} {
		state := filepath.Join(t.TempDir(), "not", "there", "yet")
		f := fetcher(t, Options{StateDir: state})
		ds, err := f.Resolve(t.Context(), []lock.Wheel{w})
		require.NoError(t, err)
		require.Equal(t, []digest.Digest{digest.FromBytes([]byte("data"))}, ds)
		f.requireHas(t, "data")
		require.Equal(t, i+1, r.n())

		other := fetcher(t, Options{StateDir: state})
		ds, err = other.Resolve(t.Context(), []lock.Wheel{w})
		require.NoError(t, err)
		require.Equal(t, digest.FromBytes([]byte("data")), ds[0])
		require.Equal(t, i+1, r.n(), "it is remembered")
		left, err := filepath.Glob(filepath.Join(state, ".fetch*"))
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestForgottenWhenDamaged(t *testing.T) {
	clean(t)
	r, url := serve(t, content("data"))
	w := wheel(url, "data")
	w.Size = 0
	state := t.TempDir()
	known := filepath.Join(state, "wheels", "sha256-"+sum("data"))
	require.NoError(t, os.MkdirAll(filepath.Dir(known), 0o700))
	for i, text := range []string{"", "junk", digest.FromBytes([]byte("other")).String()} {
		require.NoError(t, os.WriteFile(known, []byte(text), 0o600))
		ds, err := fetcher(t, Options{StateDir: state}).Resolve(t.Context(), []lock.Wheel{w})
		require.NoError(t, err)
		require.Equal(t, digest.FromBytes([]byte("data")), ds[0])
		require.Equal(t, i+1, r.n())
	}
}

func TestCompletionChecks(t *testing.T) {
	clean(t)
	_, url := serve(t, content("data"))
	noSize := wheel(url, "other")
	noSize.Size = 0
	wrongSize := wheel(url, "data")
	wrongSize.SHA256, wrongSize.Hashes, wrongSize.Size = "", hashes("data"), 5
	other := wheel(url, "data")
	other.SHA256, other.Hashes = "", hashes("other")
	for _, w := range []lock.Wheel{noSize, wrongSize, other} {
		f := fetcher(t, Options{})
		_, err := f.Resolve(t.Context(), []lock.Wheel{w})
		require.ErrorIs(t, err, ErrRefused)
		require.ErrorIs(t, err, digest.ErrMismatch)
		require.ErrorContains(t, err, w.Filename)
		f.requireLacks(t, "data", "other")
	}
	bad := wheel(url, "data")
	bad.Size, bad.SHA256, bad.Hashes = 0, "", map[string]string{"sha512": "../../etc"}
	_, err := fetcher(t, Options{}).Resolve(t.Context(), []lock.Wheel{bad})
	require.ErrorIs(t, err, ErrRefused)
}

// TestEndlessAnswer sends for as long as somebody reads: what the lock says of the size bounds it.
func TestEndlessAnswer(t *testing.T) {
	clean(t)
	_, url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := fmt.Fprint(w, strings.Repeat("x", 1<<16)); err != nil {
				return
			}
		}
	})
	w := wheel(url, "data")
	_, err := fetcher(t, Options{}).get(t.Context(), w)
	require.ErrorIs(t, err, ErrRefused)
	w.SHA256, w.Hashes = "", hashes("data")
	_, err = fetcher(t, Options{}).get(t.Context(), w)
	require.ErrorIs(t, err, ErrRefused)
}

func TestWeakHashesAreRefused(t *testing.T) {
	clean(t)
	r, url := serve(t, content("data"))
	w := wheel(url, "data")
	w.SHA256, w.Hashes = "", map[string]string{"md5": hashes("data")["md5"], "sha1": strings.Repeat("0", 40)}
	_, err := fetcher(t, Options{}).Resolve(t.Context(), []lock.Wheel{w})
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "md5")
	require.Zero(t, r.n())
}
