package server_test

import (
	"context"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// eventually waits generously.
func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 20*time.Second, 5*time.Millisecond)
}

func committed(t *testing.T, s *served, name string) (int64, bool) {
	resp, err := s.bytes.QueryWriteStatus(t.Context(), &bspb.QueryWriteStatusRequest{ResourceName: name})
	require.NoError(t, err)
	return resp.GetCommittedSize(), resp.GetComplete()
}

// interrupt sends the first bytes of an upload and breaks off when the server has them.
func interrupt(t *testing.T, s *served, name, data string) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := s.bytes.Write(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&bspb.WriteRequest{ResourceName: name, Data: []byte(data)}))
	eventually(t, func() bool { n, _ := committed(t, s, name); return n == int64(len(data)) })
}

// rest sends an upload from offset on.
func rest(t *testing.T, s *served, name string, offset int64, data string) (*bspb.WriteResponse, error) {
	return send(t, s, &bspb.WriteRequest{ResourceName: name, WriteOffset: offset, Data: []byte(data[offset:]), FinishWrite: true})
}

func TestResume(t *testing.T) {
	d, err := disk.Open(t.TempDir(), disk.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	data := strings.Repeat("0123456789", 50_000)
	for what, store := range map[string]cache.CAS{"memory": memory.New(), "disk": d} {
		t.Run(what, func(t *testing.T) {
			s := dial(t, store, nil)
			for i, fn := range digest.Functions {
				name := "i/uploads/" + strconv.Itoa(i) + "/blobs/" + fn.FromBytes([]byte(data)).String()
				n, done := committed(t, s, name)
				require.Zero(t, n)
				require.False(t, done)
				interrupt(t, s, name, data[:300_000])
				missing, err := store.FindMissing(t.Context(), []digest.Digest{fn.FromBytes([]byte(data))})
				require.NoError(t, err)
				require.Len(t, missing, 1, "what is not whole is not visible")

				_, err = rest(t, s, name, 300_001, data)
				requireCode(t, codes.InvalidArgument, err, "goes on at offset 300001, not 300000")
				interrupt(t, s, name, data[:200_000])
				// A client may have asked before the last bytes of its old connection were counted.
				resp, err := rest(t, s, name, 150_000, data)
				require.NoError(t, err)
				require.Equal(t, int64(len(data)), resp.GetCommittedSize())
				got, err := cache.ReadBlob(t.Context(), store, fn.FromBytes([]byte(data)), 1<<20)
				require.NoError(t, err)
				require.True(t, data == string(got))
				n, done = committed(t, s, name)
				require.Equal(t, int64(len(data)), n)
				require.True(t, done)
			}
		})
	}
}

// TestResumeWithWrongBytes: an upload that ends as something else is refused, and the next one begins anew.
func TestResumeWithWrongBytes(t *testing.T) {
	s := serve(t)
	name := "uploads/u/blobs/" + of("hello, world").String()
	interrupt(t, s, name, "hello")
	_, err := rest(t, s, name, 5, "hello, earth")
	requireCode(t, codes.InvalidArgument, err, of("hello, world").Hash())
	n, _ := committed(t, s, name)
	require.Zero(t, n)
	resp, err := rest(t, s, name, 0, "hello, world")
	require.NoError(t, err)
	require.Equal(t, int64(12), resp.GetCommittedSize())
}

// TestResumeIsPerUpload: another upload of the same blob begins at its own start.
func TestResumeIsPerUpload(t *testing.T) {
	s := serve(t)
	blob := "/blobs/" + of("hello, world").String()
	interrupt(t, s, "uploads/u"+blob, "hello")
	for _, other := range []string{"uploads/v" + blob, "i/uploads/u" + blob, "uploads/u" + blob + "/metadata"} {
		n, _ := committed(t, s, other)
		require.Zero(t, n)
		_, err := rest(t, s, other, 5, "hello, world")
		requireCode(t, codes.InvalidArgument, err, "begin at 0")
	}
	_, err := rest(t, s, "uploads/v"+blob, 0, "hello, world")
	require.NoError(t, err)
	resp, err := rest(t, s, "uploads/u"+blob, 5, "hello, world")
	require.NoError(t, err, "it is there by another way")
	require.Equal(t, int64(12), resp.GetCommittedSize())
}

// TestTakenOver goes on with an upload whose first stream is not known to be dead.
func TestTakenOver(t *testing.T) {
	s := serve(t)
	name := "uploads/u/blobs/" + of("hello, world").String()
	old, err := s.bytes.Write(t.Context())
	require.NoError(t, err)
	require.NoError(t, old.Send(&bspb.WriteRequest{ResourceName: name, Data: []byte("hello")}))
	eventually(t, func() bool { n, _ := committed(t, s, name); return n == 5 })
	fresh, err := s.bytes.Write(t.Context())
	require.NoError(t, err)
	require.NoError(t, fresh.Send(&bspb.WriteRequest{ResourceName: name, WriteOffset: 5, Data: []byte(", ")}))
	eventually(t, func() bool { n, _ := committed(t, s, name); return n == 7 })
	require.NoError(t, old.Send(&bspb.WriteRequest{WriteOffset: 5, Data: []byte("x")}))
	_, err = old.CloseAndRecv()
	requireCode(t, codes.Aborted, err, "another stream")
	require.NoError(t, fresh.Send(&bspb.WriteRequest{WriteOffset: 7, Data: []byte("world"), FinishWrite: true}))
	resp, err := fresh.CloseAndRecv()
	require.NoError(t, err)
	require.Equal(t, int64(12), resp.GetCommittedSize())
}

func TestKeptIsBounded(t *testing.T) {
	name := func(i int) string { return "uploads/" + strconv.Itoa(i) + "/blobs/" + of("hello, world").String() }
	kept := func(s *served) (n int) {
		for i := range 5 {
			if size, _ := committed(t, s, name(i)); size > 0 {
				n++
			}
		}
		return n
	}
	long := time.Hour
	for what, k := range map[string]server.Kept{
		"by number": {Uploads: 2, Bytes: 1 << 20, For: long}, "by size": {Uploads: 10, Bytes: 12, For: long},
		"by time": {Uploads: 10, Bytes: 1 << 20, For: time.Millisecond}, "not at all": {},
	} {
		t.Run(what, func(t *testing.T) {
			m := memory.New()
			s := dialWith(t, server.Single(m, nil), server.WithKept(k))
			for i := range 5 {
				stream, err := s.bytes.Write(t.Context())
				require.NoError(t, err)
				require.NoError(t, stream.Send(&bspb.WriteRequest{ResourceName: name(i), Data: []byte("hello")}))
				_, err = stream.CloseAndRecv()
				requireCode(t, codes.InvalidArgument, err, "without finish_write")
			}
			want := 0
			if k.For == long {
				want = 2
				size, _ := committed(t, s, name(4))
				require.Equal(t, int64(5), size, "the last ones are kept")
			}
			eventually(t, func() bool { return kept(s) == want })
		})
	}
}

// TestClose leaves no Put behind: whoever closes the server may close the store.
func TestClose(t *testing.T) {
	ended := make(chan struct{})
	s := dialWith(t, server.Single(waiting{memory.New(), ended}, nil))
	interrupt(t, s, "uploads/u/blobs/"+of("hello, world").String(), "hello")
	s.close()
	select {
	case <-ended:
	default:
		t.Fatal("Close returned while a Put was under way")
	}
}

// waiting tells when a Put has ended.
type waiting struct {
	*memory.Store
	ended chan struct{}
}

func (w waiting) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	defer close(w.ended)
	return w.Store.Put(ctx, d, r)
}
