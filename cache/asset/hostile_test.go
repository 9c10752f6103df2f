package asset_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/cache/asset"
)

// TestHostileArchives are refused, and no directory is named.
func TestHostileArchives(t *testing.T) {
	truncated := gzipped(t, tarOf(t, file("a", strings.Repeat("a", 5000))))
	wrongSum := bytes.Clone(truncated)
	wrongSum[len(wrongSum)-5] ^= 1 // of the CRC
	for what, b := range map[string][]byte{
		"above":                    tarOf(t, file("../a", "x")),
		"above, inside":            tarOf(t, file("a/../../b", "x")),
		"absolute":                 tarOf(t, file("/etc/passwd", "x")),
		"backslash":                tarOf(t, file(`..\a`, "x")),
		"no name":                  tarOf(t, file("a//b", "x")),
		"link above":               tarOf(t, link("a", "../b")),
		"absolute link":            tarOf(t, link("a", "/etc/passwd")),
		"through a link":           tarOf(t, link("a", "b"), file("a/x", "x")),
		"up from a link":           tarOf(t, file("d/e/f", "x"), link("d/up", "e/../.."), link("d/e/l", "../up/..")),
		"hard link above":          tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}),
		"hard link to a symlink":   tarOf(t, link("a", "b"), tar.Header{Name: "c", Typeflag: tar.TypeLink, Linkname: "a"}),
		"device":                   tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeChar}),
		"fifo":                     tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeFifo}),
		"twice":                    tarOf(t, file("a", "x"), file("./a", "y")),
		"file and directory":       tarOf(t, file("a", "x"), file("a/b", "y")),
		"directory above":          tarOf(t, tar.Header{Name: "../a/", Typeflag: tar.TypeDir}),
		"zip above":                zipOf(t, map[string]string{"../a": "x"}),
		"zip directory above":      zipOf(t, map[string]string{"../a/": ""}),
		"zip absolute":             zipOf(t, map[string]string{"/a": "x"}),
		"zip link above":           zipOf(t, map[string]string{"a@": "../../x"}),
		"zip, wrong checksum":      bytes.Replace(zipOf(t, map[string]string{"a": "x"}), crc("x"), crc("y"), -1),
		"truncated":                truncated[:len(truncated)-20],
		"wrong checksum of gzip":   wrongSum,
		"neither":                  []byte("no archive"),
		"nothing":                  nil,
		"gzip of something else":   gzipped(t, bytes.Repeat([]byte("no tar "), 1000)),
		"tar that ends in a file":  tarOf(t, file("a", strings.Repeat("a", 5000)))[:2000],
		"zip without its list end": zipOf(t, map[string]string{"a": "x"})[:40],
	} {
		t.Run(what, func(t *testing.T) {
			a := serveArchive(t, nil)
			a.bytes = b
			resp := a.directory(t)
			require.EqualValues(t, codes.Aborted, resp.GetStatus().GetCode(), "%v", resp.GetStatus())
			require.Nil(t, resp.GetRootDirectoryDigest())
		})
	}
}

// crc is a checksum as zip writes it.
func crc(s string) []byte {
	n := crc32.ChecksumIEEE([]byte(s))
	return []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}
}

// TestBombs: what comes out is counted, whatever is declared.
func TestBombs(t *testing.T) {
	zeros := strings.Repeat("\x00", 3<<20)
	for what, b := range map[string][]byte{
		"tar":                gzipped(t, tarOf(t, file("a", zeros))),
		"many":               gzipped(t, tarOf(t, file("a", zeros[:700_000]), file("b", zeros[:700_000]))),
		"zip":                zipOf(t, map[string]string{"a": zeros}),
		"zip that says less": bytes.ReplaceAll(zipOf(t, map[string]string{"a": zeros}), []byte{0, 0, 0x30, 0}, []byte{0, 0, 0x04, 0}),
	} {
		a := serveArchive(t, func(o *asset.Options) { o.MaxBytes = 1 << 20 })
		a.bytes = b
		resp := a.directory(t)
		code := codes.Code(resp.GetStatus().GetCode())
		require.True(t, code == codes.ResourceExhausted || what == "zip that says less" && code == codes.Aborted, "%s: %v", what, resp.GetStatus())
	}
	a := serveArchive(t, func(o *asset.Options) { o.MaxBytes = 1 << 20 })
	a.bytes = tarOf(t, file("a", zeros))
	require.EqualValues(t, codes.ResourceExhausted, a.directory(t).GetStatus().GetCode(), "the archive itself is too large")
}

// TestSparse: a sparse file of a terabyte is a tar of a few blocks.
func TestSparse(t *testing.T) {
	a := serveArchive(t, func(o *asset.Options) { o.MaxBytes = 1 << 20 })
	a.bytes = sparseTar(t, 1<<40)
	require.EqualValues(t, codes.ResourceExhausted, a.directory(t).GetStatus().GetCode())
}

// sparseTar returns a tar in the sparse format 1.0 of GNU tar: the map of what is there stands before the content.
func sparseTar(t *testing.T, size int64) []byte {
	content := make([]byte, 512)
	copy(content, "1\n0\n0\n")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "GNUSparseFile.0/a", Typeflag: tar.TypeReg, Size: 512, Format: tar.FormatUSTAR}))
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	records := pax("GNU.sparse.major", "1") + pax("GNU.sparse.minor", "0") + pax("GNU.sparse.name", "a") + pax("GNU.sparse.realsize", itoa(size))
	var x bytes.Buffer
	xw := tar.NewWriter(&x)
	require.NoError(t, xw.WriteHeader(&tar.Header{Name: "PaxHeaders.0/a", Typeflag: tar.TypeReg, Size: int64(len(records)), Format: tar.FormatUSTAR}))
	_, err = xw.Write([]byte(records))
	require.NoError(t, err)
	require.NoError(t, xw.Flush())
	head := x.Bytes()
	head[156] = tar.TypeXHeader
	checksum(head)
	return append(head, b.Bytes()...)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// pax is one record of a pax header, whose length counts itself.
func pax(key, value string) string {
	body := " " + key + "=" + value + "\n"
	n := len(body) + 2
	return strconv.Itoa(n) + body
}

// checksum writes a tar header's checksum.
func checksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h[:512] {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}
