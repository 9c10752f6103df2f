package client

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestSilent has a server that takes connections and says nothing on them: calls end, and know whose failure it is.
func TestSilent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	for _, addr := range []string{"unix://" + path, "unix:" + path} {
		c, err := dial(t.Context(), addr, Credentials{}, 100*time.Millisecond)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		_, list := c.List(t.Context(), &codeserverpb.ListRequest{})
		stream, rollback := c.Rollback(t.Context(), &codeserverpb.RollbackRequest{})
		if rollback == nil {
			_, rollback = stream.Recv()
		}
		for _, err := range []error{list, rollback} {
			require.Equal(t, codes.Unavailable, status.Code(err))
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, addr, e.Addr)
		}
	}
}

type refusing struct {
	codeserverpb.UnimplementedCodeServerServer
}

func (refusing) Rollback(_ *codeserverpb.RollbackRequest, s grpc.ServerStreamingServer[codeserverpb.DeployEvent]) error {
	return s.Send(&codeserverpb.DeployEvent{})
}

// TestError: an answer keeps its status and its words, and the end of a stream is none.
func TestError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer()
	codeserverpb.RegisterCodeServerServer(s, refusing{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	c, err := DialWith(t.Context(), l.Addr().String(), Credentials{})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = c.List(t.Context(), &codeserverpb.ListRequest{})
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, codes.Unimplemented, status.Code(err))
	require.Equal(t, "method List not implemented", status.Convert(err).Message())
	stream, err := c.Rollback(t.Context(), &codeserverpb.RollbackRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, io.EOF, err)
}

// TestUnreached: what nobody listens on is told from what cannot be connected to, and neither takes long.
func TestUnreached(t *testing.T) {
	t.Parallel()
	try := func(addr string) error {
		_, err := dial(t.Context(), addr, Credentials{}, 100*time.Millisecond)
		return err
	}
	dir := t.TempDir()
	require.ErrorContains(t, try("unix://"+filepath.Join(dir, "s")), "is 'codeserver serve' running there?")
	err := try("unix://" + filepath.Join(dir, strings.Repeat("x", 200)))
	require.ErrorContains(t, err, "it cannot be reached: ")
	require.NotContains(t, err.Error(), "codeserver serve")

	// Further connections to a socket whose queue is full are dropped, as they are on the way to a host that is not there.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	bound, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	full := fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
	queued, err := net.Dial("tcp", full)
	require.NoError(t, err)
	t.Cleanup(func() { queued.Close() })
	require.ErrorContains(t, try(full), "it cannot be reached: dial tcp "+full+": i/o timeout")
}
