package examples

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/remote"
)

// TestReadersSoak has a crowd read large blobs at one time: the server's memory does not grow with its readers.
func TestReadersSoak(t *testing.T) {
	readers, size := 50, 8<<20
	if os.Getenv("PEXPRESS_SOAK") != "" {
		readers, size = 1000, 64<<20
	}
	p := servePexcache(t)
	c, err := remote.Dial(t.Context(), "grpc://"+p.grpc)
	require.NoError(t, err)
	defer c.Close()
	var names []digest.Digest
	for i := range 4 {
		b := make([]byte, size)
		if i%2 == 0 {
			_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(b)
		} else {
			copy(b, bytes.Repeat([]byte(fmt.Sprintf("text %d ", i)), size/7))
		}
		d, err := cache.PutBlob(t.Context(), c, b)
		require.NoError(t, err)
		names = append(names, d)
	}
	const connections = 20
	var conns []*grpc.ClientConn
	for range connections {
		conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		conns = append(conns, conn)
	}
	// All have begun before any goes on.
	var began atomic.Int64
	all := make(chan struct{})
	var g errgroup.Group
	for i := range readers {
		d := names[i%len(names)]
		g.Go(func() error {
			stream, err := bspb.NewByteStreamClient(conns[i%connections]).Read(t.Context(), &bspb.ReadRequest{ResourceName: "blobs/" + d.String()})
			if err != nil {
				return err
			}
			n := int64(0)
			for {
				msg, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return err
				}
				if n == 0 {
					if began.Add(1) == int64(readers) {
						close(all)
					}
					<-all
				}
				n += int64(len(msg.GetData()))
			}
			if n != d.Size() {
				return fmt.Errorf("read %d bytes of %s", n, d)
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	peak := peakMemory(t, p.pid)
	t.Logf("%d readers of %d MiB: peak resident memory %d MiB", readers, size>>20, peak>>20)
	require.Less(t, peak, int64(1<<30))
}

// peakMemory returns the most resident memory that a process has had.
func peakMemory(t *testing.T, pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			require.NoError(t, err)
			return kib << 10
		}
	}
	require.Fail(t, "no VmHWM")
	return 0
}
