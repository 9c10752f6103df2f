package access_test

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/codeserver/access"
	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestTokenStaysSecret has the client refuse to send a token where others could read it. Nothing is connected to.
func TestTokenStaysSecret(t *testing.T) {
	for _, address := range []string{"192.0.2.1:9", "codeserver.example:9092", "[2001:db8::1]:9", "0.0.0.0:9"} {
		_, err := client.DialWith(t.Context(), address, client.Credentials{Token: "secret"})
		require.ErrorContains(t, err, "in the clear: use grpcs://"+address)
		require.NotContains(t, err.Error(), "secret")
	}
}

// TestOversized sends more than a request may have.
func TestOversized(t *testing.T) {
	token, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	c := dial(t, serve(t, `tokens = "`+write(t, "tokens", line)+`"`+grants), client.Credentials{Token: token})
	stream, err := c.Deploy(t.Context(), &codeserverpb.DeployRequest{Location: "staging", Provenance: make([]byte, 5<<20)})
	if err == nil {
		_, err = stream.Recv()
	}
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.Error(t, func() error {
		_, err := c.List(withToken(t.Context(), strings.Repeat("x", 100<<10)), &codeserverpb.ListRequest{})
		return err
	}(), "headers have a limit")
	require.NoError(t, deploy(t, c, "staging"), "the connection, or another, still serves")
}

// TestPings ends a connection whose client pings all the time.
func TestPings(t *testing.T) {
	_, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	conn, err := net.Dial("tcp", serve(t, `tokens = "`+write(t, "tokens", line)+`"`+grants))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	require.NoError(t, err)
	go func() {
		for err == nil {
			_, err = conn.Write([]byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"))
		}
	}()
	var all strings.Builder
	b := make([]byte, 4096)
	for {
		n, err := conn.Read(b)
		all.Write(b[:min(n, 1<<16)])
		if err != nil {
			break
		}
	}
	require.Contains(t, all.String(), "too_many_pings")
}

// TestIdleConnections has connections that say nothing take places up to the cap, and no more: who comes then waits for one.
func TestIdleConnections(t *testing.T) {
	token, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	limits := access.Limits()
	limits.Handshake = time.Hour // so that a slow machine's idle connections are not ended before the test ends them
	address := serveWithin(t, "max-connections = 2\n"+`tokens = "`+write(t, "tokens", line)+`"`+grants, limits)
	var idle []net.Conn
	for range 2 {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		b := make([]byte, 9) // the server's settings: it was accepted
		_, err = conn.Read(b)
		require.NoError(t, err)
		idle = append(idle, conn)
	}
	third, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer third.Close()
	require.NoError(t, third.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	_, err = third.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "a third is not accepted")
	require.NoError(t, idle[0].Close())
	require.NoError(t, third.SetReadDeadline(time.Time{}))
	_, err = third.Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, idle[1].Close())
	c := dial(t, address, client.Credentials{Token: token})
	require.NoError(t, deploy(t, c, "staging"))
}

// TestNoRequest has callers begin a call and send no request: they are told that it took too long, whoever they are.
func TestNoRequest(t *testing.T) {
	token, line, err := auth.NewToken("ci")
	require.NoError(t, err)
	limits := access.Limits()
	limits.Idle = 50 * time.Millisecond
	address := serveWithin(t, `tokens = "`+write(t, "tokens", line)+`"`+grants, limits)
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	for _, method := range []string{codeserverpb.CodeServer_List_FullMethodName, codeserverpb.CodeServer_Deploy_FullMethodName} {
		for _, ctx := range []context.Context{t.Context(), withToken(t.Context(), token)} {
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
			require.NoError(t, err)
			err = stream.RecvMsg(&codeserverpb.ListResponse{})
			require.Contains(t, []codes.Code{codes.DeadlineExceeded, codes.Unauthenticated}, status.Code(err), "%s: %v", method, err)
		}
	}
}
