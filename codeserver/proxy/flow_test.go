package proxy

import (
	"io"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

const (
	message  = 1 << 20
	messages = 64
	// slack is what the sockets, windows and servers between the two ends of a
	// blocked transfer may hold, each of them.
	slack = messages / 2 * message
)

// stalled waits until n has stopped growing, checks that the transfer is blocked
// far from its end, and that no one holds the rest in memory.
func stalled(t *testing.T, n *atomic.Int64, before uint64) {
	t.Helper()
	last := int64(-1)
	eventually(t, "the transfer stalls", func() bool {
		time.Sleep(200 * time.Millisecond)
		now := n.Load()
		same := now == last && now > 0
		last = now
		return same
	})
	require.Less(t, n.Load(), int64(slack), "sent while nobody read")
	require.Less(t, heap(), before+2*slack)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestSlowReaderBlocksVersion(t *testing.T) {
	ctx := testContext(t)
	var sent atomic.Int64
	v := &version{name: "a"}
	v.output = func(s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
		for range messages {
			if err := s.Send(output(make([]byte, message))); err != nil {
				return err
			}
			sent.Add(message)
		}
		return nil
	}
	addr, _ := v.start(t)
	_, front := serve(t, NewBackend(addr))
	client := dialGRPC(t, front, grpc.WithInitialWindowSize(1<<20), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8<<20)))
	before := heap()
	stream, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
	require.NoError(t, err)
	stalled(t, &sent, before)
	for range messages {
		res, err := stream.Recv()
		require.NoError(t, err)
		require.Len(t, res.GetPayload().GetBody(), message)
	}
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}

func TestSlowVersionBlocksSender(t *testing.T) {
	ctx := testContext(t)
	read := make(chan struct{})
	v := &version{name: "a"}
	v.input = func(s grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
		<-read
		var total int32
		for {
			req, err := s.Recv()
			if err == io.EOF {
				return s.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: total})
			}
			if err != nil {
				return err
			}
			total += int32(len(req.GetPayload().GetBody()))
		}
	}
	addr, _ := v.start(t, grpc.InitialWindowSize(1<<20))
	_, front := serve(t, NewBackend(addr))
	client := dialGRPC(t, front)
	before := heap()
	stream, err := client.StreamingInputCall(ctx)
	require.NoError(t, err)
	var sent atomic.Int64
	done := make(chan error, 1)
	go func() {
		for range messages {
			if err := stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, message)}}); err != nil {
				done <- err
				return
			}
			sent.Add(message)
		}
		done <- nil
	}()
	stalled(t, &sent, before)
	close(read)
	require.NoError(t, receive(t, done))
	res, err := stream.CloseAndRecv()
	require.NoError(t, err)
	require.EqualValues(t, messages*message, res.GetAggregatedPayloadSize())
}

// zeros is a body that counts what was taken from it.
type zeros struct {
	left int64
	sent *atomic.Int64
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	z.sent.Add(n)
	return int(n), nil
}

func TestSlowHTTP(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		read := make(chan struct{})
		var out atomic.Int64
		addr, _ := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				<-read
				named("a")(w, r)
				return
			}
			_, _ = io.Copy(w, &zeros{messages * message, &out})
		})
		_, front := serve(t, NewBackend(addr))
		client := newClient(t, h2)
		before := heap()

		res, err := client.Get("http://" + front)
		require.NoError(t, err)
		stalled(t, &out, before)
		n, err := io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		require.EqualValues(t, messages*message, n)
		require.NoError(t, res.Body.Close())

		var in atomic.Int64
		req, err := http.NewRequestWithContext(testContext(t), http.MethodPut, "http://"+front, &zeros{messages * message, &in})
		require.NoError(t, err)
		got := make(chan string, 1)
		go func() {
			res, err := client.Do(req)
			if err != nil {
				got <- err.Error()
				return
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			got <- string(b)
		}()
		stalled(t, &in, before)
		close(read)
		require.Equal(t, "a 67108864", receive(t, got))
	}
}

// Streams that a hung version does not read leave room for the calls of another
// version on the same client connection.
func TestHungVersionBlocksNoOther(t *testing.T) {
	ctx := testContext(t)
	hung := &version{name: "a"}
	hung.input = func(s grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
		<-s.Context().Done()
		return s.Context().Err()
	}
	addr, _ := hung.start(t, grpc.InitialWindowSize(64<<10))
	s, front := serve(t, NewBackend(addr))
	client := dialGRPC(t, front)
	var sent atomic.Int64
	for range 4 {
		stream, err := client.StreamingInputCall(ctx)
		require.NoError(t, err)
		go func() {
			for stream.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, message)}}) == nil {
				sent.Add(message)
			}
		}()
	}
	stalled(t, &sent, heap())
	next, _ := (&version{name: "b"}).start(t)
	s.Point(NewBackend(next))
	res, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, message)}})
	require.NoError(t, err)
	require.Equal(t, "b", res.GetServerId())
}
