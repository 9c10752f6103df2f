package client

import (
	"io"
	"net"
	"path/filepath"
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
