package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sync/errgroup"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// limited is a server with limits that a test can wait for, and its address.
func limited(t *testing.T, l server.Limits, store *memory.Store) (address string, conn *grpc.ClientConn) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer(l.Options()...)
	service := server.Register(g, server.Single(store, store))
	go func() { _ = g.Serve(listener) }()
	conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() {
		conn.Close()
		g.Stop()
		service.Close()
	})
	return listener.Addr().String(), conn
}

// short are the default limits with times that a test can wait for.
func short() server.Limits {
	l := server.DefaultLimits
	l.Idle, l.Handshake, l.Connection = 500*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
	return l
}

// requireDropped reads until the server closes the connection.
func requireDropped(t *testing.T, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err := io.Copy(io.Discard, conn)
	if err != nil {
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		var timeout net.Error
		require.False(t, asNet(err, &timeout) && timeout.Timeout(), "the connection was left open")
	}
}

func asNet(err error, target *net.Error) bool {
	e, ok := err.(net.Error)
	if ok {
		*target = e
	}
	return ok
}

// TestSlowLoris connects in the ways of those who keep servers waiting.
func TestSlowLoris(t *testing.T) {
	address, _ := limited(t, short(), memory.New())
	preface := []byte(http2.ClientPreface)
	var settings, begun bytes.Buffer
	f := http2.NewFramer(&settings, nil)
	require.NoError(t, f.WriteSettings())
	var block bytes.Buffer
	h := hpack.NewEncoder(&block)
	require.NoError(t, h.WriteField(hpack.HeaderField{Name: ":method", Value: "POST"}))
	require.NoError(t, http2.NewFramer(&begun, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()}))
	for what, says := range map[string][]byte{
		"nothing":                   nil,
		"half a greeting":           preface[:10],
		"a greeting, and no more":   append(append([]byte{}, preface...), settings.Bytes()...),
		"headers that do not end":   append(append(append([]byte{}, preface...), settings.Bytes()...), begun.Bytes()...),
		"half a frame's own header": append(append(append([]byte{}, preface...), settings.Bytes()...), begun.Bytes()[:4]...),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", address)
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write(says)
			require.NoError(t, err)
			requireDropped(t, conn)
		})
	}
}

// TestIdleStreams ends the streams of clients that do not go on, and keeps what they have sent.
func TestIdleStreams(t *testing.T) {
	m := memory.New()
	_, conn := limited(t, short(), m)
	s := &served{bytes: bspb.NewByteStreamClient(conn), cas: repb.NewContentAddressableStorageClient(conn)}

	stream, err := s.bytes.Write(t.Context())
	require.NoError(t, err)
	_, err = stream.CloseAndRecv()
	require.Error(t, err, "a stream that ended with nothing said")

	silent, err := s.bytes.Write(t.Context())
	require.NoError(t, err)
	require.Equal(t, codes.DeadlineExceeded, status.Code(silent.RecvMsg(&bspb.WriteResponse{})))

	name := "uploads/u/blobs/" + of("hello, world").String()
	stalled, err := s.bytes.Write(t.Context())
	require.NoError(t, err)
	require.NoError(t, stalled.Send(&bspb.WriteRequest{ResourceName: name, Data: []byte("hello")}))
	err = stalled.RecvMsg(&bspb.WriteResponse{})
	require.Equal(t, codes.DeadlineExceeded, status.Code(err), "%v", err)
	resp, err := rest(t, s, name, 5, "hello, world")
	require.NoError(t, err)
	require.Equal(t, int64(12), resp.GetCommittedSize())

	chunks, err := s.cas.RegisterChunkMapping(t.Context())
	require.NoError(t, err)
	require.NoError(t, chunks.Send(&repb.RegisterChunkMappingRequest{BlobDigest: of("x").Proto()}))
	require.Equal(t, codes.DeadlineExceeded, status.Code(chunks.RecvMsg(&repb.RegisterChunkMappingResponse{})))

	// A reader that takes nothing: more than the windows of HTTP/2 and gRPC's buffers hold.
	d := put(t, m, string(random(1, 32<<20)))
	read, err := s.bytes.Read(t.Context(), &bspb.ReadRequest{ResourceName: "blobs/" + d.String()})
	require.NoError(t, err)
	_, err = read.Recv()
	require.NoError(t, err)
	time.Sleep(4 * short().Idle) // for the server to give up; what was sent before is still read below
	for err == nil {
		_, err = read.Recv()
	}
	require.Equal(t, codes.DeadlineExceeded, status.Code(err), "%v", err)
}

// TestUnfinishedMessage sends a call whose one message never comes whole: no handler ever sees it.
func TestUnfinishedMessage(t *testing.T) {
	address, _ := limited(t, short(), memory.New())
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	f := http2.NewFramer(conn, conn)
	require.NoError(t, f.WriteSettings())
	var block bytes.Buffer
	h := hpack.NewEncoder(&block)
	for _, kv := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs"},
		{":authority", "x"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		require.NoError(t, h.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]}))
	}
	require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	half := binary.BigEndian.AppendUint32([]byte{0}, 1000)
	require.NoError(t, f.WriteData(1, false, append(half, "only a part"...)))
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	for {
		frame, err := f.ReadFrame()
		require.NoError(t, err)
		if h, ok := frame.(*http2.HeadersFrame); ok && h.StreamEnded() {
			return // trailers: the call was ended
		}
		if frame.Header().Type == http2.FrameRSTStream {
			return
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			require.NoError(t, f.WriteSettingsAck())
		}
	}
}

func TestTooManyCalls(t *testing.T) {
	l := server.DefaultLimits
	l.Calls = 2
	_, conn := limited(t, l, memory.New())
	bytes := bspb.NewByteStreamClient(conn)
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		stream, err := bytes.Write(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&bspb.WriteRequest{ResourceName: "uploads/u/blobs/" + of("hello").String(), Data: []byte("h")}))
	}
	cas := repb.NewContentAddressableStorageClient(conn)
	eventually(t, func() bool {
		_, err := cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{})
		return status.Code(err) == codes.ResourceExhausted
	})
	cancel()
	eventually(t, func() bool {
		_, err := cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{})
		return err == nil
	})
}

// TestMemoryIsShared makes calls that together need many times what they may have: they wait for each other.
func TestMemoryIsShared(t *testing.T) {
	m := memory.New()
	s := dialWith(t, server.Single(m, m), server.WithMemory(1<<20))
	data := strings.Repeat("some text ", 100_000)
	d := put(t, m, data)
	var g errgroup.Group
	for range 20 {
		g.Go(func() error {
			_, err := readAll(t, s, "blobs/"+d.String(), 0, 0)
			return err
		})
		g.Go(func() error {
			_, err := readAll(t, s, "compressed-blobs/zstd/"+d.String(), 0, 0)
			return err
		})
		g.Go(func() error {
			_, err := s.cas.BatchReadBlobs(t.Context(), &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d.Proto()}})
			return err
		})
	}
	require.NoError(t, g.Wait())
	missing, err := m.FindMissing(t.Context(), []digest.Digest{d})
	require.NoError(t, err)
	require.Empty(t, missing)
}
