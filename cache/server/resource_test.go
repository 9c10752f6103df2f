package server

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
)

const (
	hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // of "hello"
	blob = hash + "/5"
)

func TestReadName(t *testing.T) {
	for name, instance := range map[string]string{
		"blobs/" + blob: "", "i/blobs/" + blob: "i", "a/b/c/blobs/sha256/" + blob: "a/b/c", "/blobs/" + blob: "",
		"sha256/blobs/" + blob: "sha256", "compressed-blobs/zstd/" + blob: "", "i/compressed-blobs/zstd/sha256/" + blob: "i",
		"a/b/blobs/blake3/" + blob: "a/b", "compressed-blobs/zstd/blake3/" + blob: "",
	} {
		r, err := readName(name)
		require.NoError(t, err, name)
		want := blob
		if strings.Contains(name, "blake3") {
			want = "blake3/" + blob
		}
		require.Equal(t, want, r.digest.String())
		require.Equal(t, instance, r.instance)
		require.Equal(t, strings.Contains(name, "zstd"), r.zstd)
	}
	for name, says := range map[string]string{
		"": "no digest", "blobs": "no digest", "blobs/": "no digest", blob: "no digest", "blobs/" + hash: "no digest",
		"blobs/sha256/" + hash:            "no size",
		"blobs/blake3/" + hash:            "no size",
		"blobs/" + hash + "/x":            "not a size",
		"blobs/" + hash + "/05":           "not a size",
		"blobs/" + hash + "/-5":           "negative",
		"blobs/" + hash[1:] + "/5":        "63 characters",
		"blobs/" + blob + "/more":         "follows the size",
		"blobs/" + blob + "/":             "follows the size",
		"blobs/sha1/" + blob:              "digest function sha1 is not supported",
		"blobs/sha256/blake3/" + hash:     "not HASH/SIZE",
		"compressed-blobs/brotli/" + blob: "\"brotli\" is not supported",
		"compressed-blobs/identity/x":     "\"identity\" is not supported",
		"compressed-blobs":                "no digest",
		"compressed-blobs/zstd":           "no size",
		"uploads/u/blobs/" + blob:         "no digest",
		"blobs/blobs/" + blob:             "not a size",
		"actions/blobs/" + blob:           "no digest",
		"Blobs/" + blob:                   "no digest",
	} {
		_, err := readName(name)
		require.ErrorIs(t, err, digest.ErrInvalid, name)
		require.ErrorContains(t, err, says, name)
	}
}

func TestWriteName(t *testing.T) {
	for _, name := range []string{
		"uploads/u/blobs/" + blob, "i/j/uploads/u/blobs/" + blob, "uploads/u/blobs/sha256/" + blob, "uploads/u/blobs/" + blob + "/a/b",
		"uploads/u/blobs/" + blob + "/blobs/uploads", "uploads/u/compressed-blobs/zstd/" + blob + "/a/b",
	} {
		r, err := writeName(name)
		require.NoError(t, err, name)
		require.Equal(t, blob, r.digest.String())
		require.Equal(t, strings.HasPrefix(name, "i/j/"), r.instance == "i/j")
	}
	for name, says := range map[string]string{
		"": "no upload", "uploads": "no upload", "blobs/" + blob: "no upload", "uploads//blobs/" + blob: "no upload",
		"uploads/blobs/" + blob:                      "no digest",
		"uploads/u/v/blobs/" + blob:                  "no digest",
		"uploads/u/blobs/" + hash:                    "no digest",
		"uploads/u/blobs/sha256/" + hash:             "no size",
		"uploads/u/blobs/sha512/" + blob:             "sha512 is not supported",
		"uploads/u/compressed-blobs/deflate/" + blob: "deflate\" is not supported",
	} {
		_, err := writeName(name)
		require.ErrorIs(t, err, digest.ErrInvalid, name)
		require.ErrorContains(t, err, says, name)
	}
}

func TestErrorsQuoteLittle(t *testing.T) {
	_, err := readName(strings.Repeat("x", 1<<20))
	require.Error(t, err)
	require.Less(t, len(err.Error()), 1000)
}

// FuzzNames checks that no name panics, and that a digest that is taken from one stands in it.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"blobs/" + blob, "i/uploads/u/blobs/sha256/" + blob + "/x", "compressed-blobs/zstd/" + blob, "///", "uploads"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if r, err := readName(name); err == nil {
			require.True(t, strings.HasSuffix(name, "/"+r.digest.String()), name)
			require.True(t, strings.HasPrefix(name, r.instance), name)
		} else {
			require.Zero(t, r)
		}
		if r, err := writeName(name); err == nil {
			require.Contains(t, name, "/"+r.digest.String())
		} else {
			require.Zero(t, r)
		}
	})
}
