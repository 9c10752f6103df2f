package proxy

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func replayOf(r io.Reader) *replay {
	return newReplay(&http.Request{Body: io.NopCloser(r)}, nil, newBufferPool())
}

func TestReplayFromTheFirstByte(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789"), 10<<10)
	r := replayOf(bytes.NewReader(want))
	for _, n := range []int{0, 1, readSize, readSize + 1} {
		a, err := r.again()
		require.NoError(t, err)
		got := make([]byte, n)
		_, err = io.ReadFull(a, got)
		require.NoError(t, err)
		require.Equal(t, want[:n], got)
		require.NoError(t, a.Close())
		_, err = a.Read(got[:min(n, 1)])
		require.ErrorIs(t, err, errBodyClosed)
	}
	a, err := r.again()
	require.NoError(t, err)
	r.commit()
	got, err := io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, want, got)
	_, err = r.again()
	require.ErrorIs(t, err, errNotReplayable)
}

func TestReplayKeepsOnlySoMuch(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), replayLimit/4)
	r := replayOf(bytes.NewReader(want))
	a, err := r.again()
	require.NoError(t, err)
	got := make([]byte, replayLimit)
	_, err = io.ReadFull(a, got)
	require.NoError(t, err)
	rest, err := io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, want, append(got, rest...))
	require.LessOrEqual(t, cap(r.buf), 2*readSize)
	_, err = r.again()
	require.ErrorIs(t, err, errNotReplayable)
}

// A silent client keeps no attempt from closing, and its next bytes go to the
// attempt that follows.
func TestReplayCloseWakesReader(t *testing.T) {
	pr, pw := io.Pipe()
	r := replayOf(pr)
	a, err := r.again()
	require.NoError(t, err)
	got := make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 10))
		got <- err
	}()
	eventually(t, "a read begins", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.reading
	})
	require.NoError(t, a.Close())
	require.ErrorIs(t, receive(t, got), errBodyClosed)
	b, err := r.again()
	require.NoError(t, err)
	go func() {
		_, _ = io.WriteString(pw, "hello")
		_ = pw.CloseWithError(errors.New("cut"))
	}()
	all, err := io.ReadAll(b)
	require.EqualError(t, err, "cut")
	require.Equal(t, "hello", string(all))
	require.ErrorIs(t, r.failed(), errUnexpectedBody)
	r.close()
}
