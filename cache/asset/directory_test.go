package asset_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/asset"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/cache/server"
)

// tarOf returns an archive of headers. A file's content stands in its header as the record "content".
func tarOf(t *testing.T, members ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range members {
		content := h.PAXRecords["content"]
		h.PAXRecords = nil
		if h.Typeflag == tar.TypeXGlobalHeader {
			h.PAXRecords = map[string]string{"comment": "a commit"}
		}
		h.Size = int64(len(content))
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func file(name, content string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, PAXRecords: map[string]string{"content": content}}
}

func link(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
}

func gzipped(t *testing.T, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

// zipOf returns an archive of names and contents; a name that ends in @ is a symlink's.
func zipOf(t *testing.T, members map[string]string) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		if bare, ok := strings.CutSuffix(name, "@"); ok {
			h.Name = bare
			h.SetMode(fs.ModeSymlink | 0o777)
		}
		out, err := w.CreateHeader(h)
		require.NoError(t, err)
		_, err = out.Write([]byte(members[name]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// archives is the services, and an origin that has one archive.
type archives struct {
	*served
	uri   string
	bytes []byte
	asked atomic.Int64
}

func serveArchive(t *testing.T, change func(*asset.Options)) *archives {
	a := &archives{}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a.asked.Add(1)
		_, _ = w.Write(a.bytes)
	}))
	t.Cleanup(origin.Close)
	a.uri = origin.URL + "/archive"
	a.served = serve(t, func(o *asset.Options) {
		allow, err := asset.ParseAllowed([]string{origin.URL})
		require.NoError(t, err)
		o.Allow = allow
		if change != nil {
			change(o)
		}
	})
	return a
}

func (a *archives) directory(t *testing.T, qs ...string) *assetpb.FetchDirectoryResponse {
	resp, err := a.FetchDirectory(t.Context(), &assetpb.FetchDirectoryRequest{Uris: []string{a.uri}, Qualifiers: with(qs...)})
	require.NoError(t, err)
	return resp
}

// tree returns what was fetched: paths with contents, and symlinks with "-> " before their targets.
func (a *archives) tree(t *testing.T, qs ...string) map[string]string {
	resp := a.directory(t, qs...)
	require.Zero(t, resp.GetStatus().GetCode(), "%v", resp.GetStatus())
	root, err := digest.SHA256.FromProto(resp.GetRootDirectoryDigest())
	require.NoError(t, err)
	tree, err := merkle.Load(t.Context(), a.store, root)
	require.NoError(t, err)
	found := map[string]string{}
	for path, d := range tree.Files() {
		b, err := cache.ReadBlob(t.Context(), a.store, d, 1<<30)
		require.NoError(t, err)
		found[path] = string(b)
	}
	for path, target := range tree.Symlinks() {
		found[path] = "-> " + target
	}
	return found
}

func TestFetchDirectory(t *testing.T) {
	large := strings.Repeat("large ", 100_000)
	members := []tar.Header{
		{Typeflag: tar.TypeXGlobalHeader},
		{Name: "./", Typeflag: tar.TypeDir},
		{Name: "p/", Typeflag: tar.TypeDir},
		{Name: "empty/", Typeflag: tar.TypeDir},
		file("./p/a", "a"), file("p/sub/large", large), file("p/none", ""), link("p/l", "sub/large"), file("b", "b"),
	}
	want := map[string]string{"p/a": "a", "p/sub/large": large, "p/none": "", "p/l": "-> sub/large", "b": "b"}
	plain := tarOf(t, members...)
	for what, b := range map[string][]byte{
		"tar": plain, "tar by gzip": gzipped(t, plain),
		"zip": zipOf(t, map[string]string{"p/": "", "p/a": "a", "p/sub/large": large, "p/none": "", "p/l@": "sub/large", "b": "b"}),
	} {
		t.Run(what, func(t *testing.T) {
			a := serveArchive(t, nil)
			a.bytes = b
			for range 2 {
				require.Equal(t, want, a.tree(t, "checksum.sri", sri(string(b)), "bazel.canonical_id", "x"))
			}
			require.EqualValues(t, 1, a.asked.Load(), "the second time it is known")
			require.Equal(t, map[string]string{"a": "a", "sub/large": large, "none": "", "l": "-> sub/large"}, a.tree(t, "directory", "p"))
			require.Equal(t, map[string]string{"large": large}, a.tree(t, "directory", "p/sub/"))
			require.EqualValues(t, codes.Aborted, a.directory(t, "directory", "q").GetStatus().GetCode())
			require.EqualValues(t, codes.Aborted, a.directory(t, "checksum.sri", sri("other")).GetStatus().GetCode())
		})
	}
}

// TestSameTreeFromEachArchive: a tree is named by what it holds.
func TestSameTreeFromEachArchive(t *testing.T) {
	a := serveArchive(t, nil)
	var roots []string
	for _, b := range [][]byte{
		tarOf(t, file("x/a", "1"), file("x/b", "2")), gzipped(t, tarOf(t, file("./x/b", "2"), file("./x/a", "1"))), zipOf(t, map[string]string{"x/a": "1", "x/b": "2"}),
	} {
		a.bytes = b
		roots = append(roots, a.directory(t, "checksum.sri", sri(string(b))).GetRootDirectoryDigest().GetHash())
	}
	require.Len(t, slices.Compact(roots), 1)
	require.NotEmpty(t, roots[0])
}

// TestHardLinks are files of their own, and lead only to files of the archive.
func TestHardLinks(t *testing.T) {
	a := serveArchive(t, nil)
	a.bytes = tarOf(t, file("a", "a"), tar.Header{Name: "sub/b", Typeflag: tar.TypeLink, Linkname: "./a"})
	require.Equal(t, map[string]string{"a": "a", "sub/b": "a"}, a.tree(t))
	require.Equal(t, map[string]string{"b": "a"}, a.tree(t, "directory", "sub"))
}

// TestDirectoryRights: to unpack is to store.
func TestDirectoryRights(t *testing.T) {
	a := serveArchive(t, nil)
	a.bytes = tarOf(t, file("a", "x"))
	req := &assetpb.FetchDirectoryRequest{Uris: []string{a.uri}}
	req.DigestFunction = repb.DigestFunction_BLAKE3
	_, err := a.FetchDirectory(t.Context(), req)
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	req.DigestFunction = 0
	req.Qualifiers = with("vcs.commit", "x")
	_, err = a.FetchDirectory(t.Context(), req)
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	req.Qualifiers = nil
	_, err = a.FetchBlob(t.Context(), &assetpb.FetchBlobRequest{Uris: []string{a.uri}, Qualifiers: with("directory", "p")})
	require.Equal(t, codes.InvalidArgument, status.Code(err), "a blob has no directories")
	a.may[server.WriteCAS] = false
	_, err = a.FetchDirectory(t.Context(), req)
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	require.Zero(t, a.asked.Load())
}

// TestSumsAreOfTheArchive in an algorithm that is no digest function.
func TestSumsAreOfTheArchive(t *testing.T) {
	a := serveArchive(t, nil)
	a.bytes = gzipped(t, tarOf(t, file("a", "x")))
	require.Equal(t, map[string]string{"a": "x"}, a.tree(t, "checksum.sri", sri512(string(a.bytes))))
	require.EqualValues(t, codes.Aborted, a.directory(t, "checksum.sri", "sha384-"+base64.StdEncoding.EncodeToString(make([]byte, 48))).GetStatus().GetCode())
}

// TestNotRemembered: an archive that was refused is asked for anew.
func TestNotRemembered(t *testing.T) {
	a := serveArchive(t, nil)
	a.bytes = tarOf(t, file("../a", "x"))
	require.NotZero(t, a.directory(t).GetStatus().GetCode())
	a.bytes = tarOf(t, file("a", "x"))
	require.Equal(t, map[string]string{"a": "x"}, a.tree(t))
}
