package digest_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
)

func TestHasher(t *testing.T) {
	h := digest.NewHasher()
	require.Equal(t, digest.Empty, h.Digest())
	_, _ = io.WriteString(h, "a")
	_, _ = io.WriteString(h, "bc")
	require.Equal(t, digest.FromBytes([]byte("abc")), h.Digest())

	d, err := digest.FromReader(iotest.OneByteReader(strings.NewReader("abc")))
	require.NoError(t, err)
	require.Equal(t, h.Digest(), d)
	broken := errors.New("broken")
	_, err = digest.FromReader(iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
}

// sources are the ways in which readers deliver the same bytes.
var sources = map[string]func(io.Reader) io.Reader{
	"plain":             func(r io.Reader) io.Reader { return r },
	"one byte":          iotest.OneByteReader,
	"half":              iotest.HalfReader,
	"data with the EOF": iotest.DataErrReader,
}

func TestVerifyRight(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 513, 100_000} {
		b := bytes.Repeat([]byte("pexpress"), size/8+1)[:size]
		for name, source := range sources {
			r := digest.NewReader(io.NopCloser(source(bytes.NewReader(b))), digest.FromBytes(b))
			got, err := io.ReadAll(r)
			require.NoError(t, err, "%s, %d bytes", name, size)
			require.True(t, bytes.Equal(b, got))
			n, err := r.Read(make([]byte, 1))
			require.Zero(t, n)
			require.Equal(t, io.EOF, err, "the end stays the end")
		}
		// iotest.TestReader checks the contract of io.Reader: empty reads, partial reads, sticky EOF.
		require.NoError(t, iotest.TestReader(digest.NewReader(io.NopCloser(bytes.NewReader(b)), digest.FromBytes(b)), b))
	}
}

func TestVerifyWrong(t *testing.T) {
	right := bytes.Repeat([]byte("0123456789"), 1000)
	d := digest.FromBytes(right)
	corrupt := bytes.Clone(right)
	corrupt[9999] ^= 0x80
	for name, wrong := range map[string][]byte{
		"short": right[:9999], "none": nil, "long": append(bytes.Clone(right), '0'), "corrupt": corrupt,
	} {
		for kind, source := range sources {
			r := digest.NewReader(io.NopCloser(source(bytes.NewReader(wrong))), d)
			got, err := io.ReadAll(r)
			require.ErrorIs(t, err, digest.ErrMismatch, "%s from the reader %q", name, kind)
			require.ErrorContains(t, err, d.Hash())
			require.LessOrEqual(t, len(got), len(right), "no more than was declared")
			_, again := r.Read(make([]byte, 1))
			require.Equal(t, err, again, "the error stays")
		}
	}
}

// TestVerifyEmptyBuffer checks that a Read of nothing decides nothing.
func TestVerifyEmptyBuffer(t *testing.T) {
	r := digest.NewReader(io.NopCloser(strings.NewReader("abd")), digest.FromBytes([]byte("abc")))
	n, err := r.Read(nil)
	require.Zero(t, n)
	require.NoError(t, err)
}

func TestVerifyPassesErrors(t *testing.T) {
	broken := errors.New("the disk broke")
	for _, n := range []int{0, 2, 3} {
		r := io.MultiReader(strings.NewReader("abc"[:n]), iotest.ErrReader(broken))
		_, err := io.ReadAll(digest.NewReader(io.NopCloser(r), digest.FromBytes([]byte("abc"))))
		require.ErrorIs(t, err, broken)
		require.NotErrorIs(t, err, digest.ErrMismatch)
	}
}

type closer struct {
	io.Reader
	closed int
}

func (c *closer) Close() error {
	c.closed++
	return nil
}

func TestVerifyCloses(t *testing.T) {
	c := &closer{Reader: strings.NewReader("abc")}
	require.NoError(t, digest.NewReader(c, digest.FromBytes([]byte("abc"))).Close())
	require.Equal(t, 1, c.closed)
}
