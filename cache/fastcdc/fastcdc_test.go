package fastcdc

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// split returns all chunks.
func split(t *testing.T, r io.Reader, p Params) (chunks [][]byte) {
	c, err := New(r, p)
	require.NoError(t, err)
	for {
		b, err := c.Next()
		if errors.Is(err, io.EOF) {
			return chunks
		}
		require.NoError(t, err)
		chunks = append(chunks, bytes.Clone(b))
	}
}

// TestVectors runs the Remote Execution API's own test vectors, which lie in its module, on the picture that they were
// made from (Toriyama Sekien, 1776).
func TestVectors(t *testing.T) {
	picture, err := os.ReadFile("testdata/SekienAkashita.jpg")
	require.NoError(t, err)
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/bazelbuild/remote-apis").Output()
	require.NoError(t, err)
	vectors, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "build/bazel/remote/execution/v2/fastcdc2020_test_vectors.txt"))
	require.NoError(t, err)
	p := Params{Average: 16384, Min: 4096, Max: 65535}
	var want, got []string
	for line := range strings.Lines(string(vectors)) {
		line = strings.TrimSpace(line)
		if seed, ok := strings.CutPrefix(line, "# Seed: "); ok {
			_, err := fmt.Sscan(seed, &p.Seed)
			require.NoError(t, err)
			got = append(got, line)
			got = append(got, describe(t, picture, p)...)
			want = append(want, line)
		} else if line != "" && line[0] != '#' {
			want = append(want, line)
		}
	}
	require.Len(t, want, 14, "the file holds two lists of six")
	require.Equal(t, want, got)
}

// describe lists chunks as the test vectors do.
func describe(t *testing.T, data []byte, p Params) (lines []string) {
	c, err := New(nil, p)
	require.NoError(t, err)
	offset := 0
	for _, chunk := range split(t, bytes.NewReader(data), p) {
		n, hash := c.cut(data[offset:min(len(data), offset+p.Max)])
		require.Equal(t, len(chunk), n)
		sum := sha256.Sum256(chunk)
		lines = append(lines, fmt.Sprintf("%d\t%d\t%s\t%d", offset, n, hex.EncodeToString(sum[:]), hash))
		offset += n
	}
	return lines
}

// TestGears holds the first entries of the table, as REAPI's implementations have them.
func TestGears(t *testing.T) {
	g := gears(0)
	require.Equal(t, uint64(0x3b5d3c7d207e37dc), g[0])
	require.Equal(t, uint64(0x784d68ba91123086), g[1])
	require.Equal(t, g[7]^42, gears(42)[7])
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b) // never fails
	return b
}

func TestSizes(t *testing.T) {
	p := Params{Average: 4096}
	for _, n := range []int{0, 1, 1023, 1024, 1025, 4096, 16384, 16385, 1 << 20} {
		data := random(1, n)
		chunks := split(t, bytes.NewReader(data), p)
		require.Equal(t, data, append([]byte{}, bytes.Join(chunks, nil)...))
		for i, c := range chunks {
			require.LessOrEqual(t, len(c), 16384)
			require.True(t, i == len(chunks)-1 || len(c) >= 1024)
		}
		require.Equal(t, chunks, split(t, iotest.HalfReader(iotest.DataErrReader(bytes.NewReader(data))), p), "however it is read")
	}
	require.Len(t, split(t, bytes.NewReader(make([]byte, 5*16384)), p), 5, "zeroes are cut at the largest size")
}

// TestInsertionMovesFewChunks is what the whole is good for.
func TestInsertionMovesFewChunks(t *testing.T) {
	data := random(2, 1<<20)
	edited := append(append(bytes.Clone(data[:500_000]), "inserted"...), data[500_000:]...)
	known := map[string]bool{}
	for _, c := range split(t, bytes.NewReader(data), Params{Average: 4096}) {
		known[string(c)] = true
	}
	fresh := 0
	for _, c := range split(t, bytes.NewReader(edited), Params{Average: 4096}) {
		if !known[string(c)] {
			fresh++
		}
	}
	require.Greater(t, len(known), 100)
	require.Less(t, fresh, 5)
}

func TestRefuses(t *testing.T) {
	for _, p := range []Params{
		{},
		{Average: 1000},
		{Average: 512},
		{Average: 16 << 20},
		{Average: 4096, Min: 8192},
		{Average: 4096, Max: 1024},
		{Average: 4096, Min: -1},
	} {
		_, err := New(nil, p)
		require.Error(t, err, "%+v", p)
	}
	broken := errors.New("the source broke")
	c, err := New(io.MultiReader(bytes.NewReader(random(3, 1000)), iotest.ErrReader(broken)), Params{Average: 1024})
	require.NoError(t, err)
	_, err = c.Next()
	require.ErrorIs(t, err, broken, "what is cut short gives no chunk")
}

func BenchmarkChunk(b *testing.B) {
	data := random(4, 32<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		c, err := New(bytes.NewReader(data), Params{Average: 512 << 10})
		require.NoError(b, err)
		for err == nil {
			_, err = c.Next()
		}
	}
}
