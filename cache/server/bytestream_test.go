package server_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

func readAll(t *testing.T, s *served, name string, offset, limit int64) (string, error) {
	stream, err := s.bytes.Read(t.Context(), &bspb.ReadRequest{ResourceName: name, ReadOffset: offset, ReadLimit: limit})
	require.NoError(t, err)
	var b strings.Builder
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
		b.Write(resp.GetData())
	}
}

// send sends messages and returns what the server answers.
func send(t *testing.T, s *served, msgs ...*bspb.WriteRequest) (*bspb.WriteResponse, error) {
	stream, err := s.bytes.Write(t.Context())
	require.NoError(t, err)
	for _, m := range msgs {
		if err := stream.Send(m); err != nil {
			require.ErrorIs(t, err, io.EOF, "the server has answered already")
			break
		}
	}
	return stream.CloseAndRecv()
}

// upload sends data in pieces, as a client of REAPI does.
func upload(t *testing.T, s *served, name, data string) (*bspb.WriteResponse, error) {
	const piece = 64 << 10
	var msgs []*bspb.WriteRequest
	for offset := 0; ; offset += piece {
		end := min(offset+piece, len(data))
		m := &bspb.WriteRequest{WriteOffset: int64(offset), Data: []byte(data[offset:end]), FinishWrite: end == len(data)}
		if offset == 0 {
			m.ResourceName = name
		}
		if msgs = append(msgs, m); m.FinishWrite {
			return send(t, s, msgs...)
		}
	}
}

func TestRead(t *testing.T) {
	s := serve(t)
	data := strings.Repeat("0123456789", 100_000)
	d := put(t, s.store, data)
	name := "blobs/" + d.String()
	size := int64(len(data))
	for _, c := range []struct{ offset, limit int64 }{
		{0, 0},
		{0, 1},
		{5, 0},
		{5, 10},
		{0, size},
		{0, size + 5},
		{size - 1, 0},
		{size - 1, 100},
		{size, 0},
		{size, 1},
		{300_000, 1 << 60},
	} {
		want := data[c.offset:]
		if c.limit > 0 {
			want = want[:min(int64(len(want)), c.limit)]
		}
		got, err := readAll(t, s, name, c.offset, c.limit)
		require.NoError(t, err, "%+v", c)
		require.True(t, want == got, "%+v", c)
	}
	got, err := readAll(t, s, "some/instance/blobs/sha256/"+digest.Empty.String(), 0, 0)
	require.NoError(t, err)
	require.Empty(t, got)

	_, err = readAll(t, s, name, -1, 0)
	requireCode(t, codes.OutOfRange, err, d.String())
	_, err = readAll(t, s, name, size+1, 0)
	requireCode(t, codes.OutOfRange, err, d.String())
	_, err = readAll(t, s, name, 0, -1)
	requireCode(t, codes.InvalidArgument, err, "negative")
	_, err = readAll(t, s, "blobs/"+of("gone").String(), 0, 0)
	requireCode(t, codes.NotFound, err, of("gone").String())
	_, err = readAll(t, s, "blobs/"+d.Hash()+"/9223372036854775807", 0, 0)
	requireCode(t, codes.NotFound, err, d.Hash())
	_, err = readAll(t, s, "compressed-blobs/deflate/"+d.String(), 0, 0)
	requireCode(t, codes.InvalidArgument, err, "deflate\" is not supported")
	_, err = readAll(t, s, "compressed-blobs/zstd/"+d.String(), 0, 5)
	requireCode(t, codes.InvalidArgument, err, "limit")
}

func TestWrite(t *testing.T) {
	s := serve(t)
	for _, data := range []string{"x", "", strings.Repeat("large ", 100_000)} {
		resp, err := upload(t, s, "instance/uploads/1234/blobs/"+of(data).String()+"/metadata/of/the/client", data)
		require.NoError(t, err)
		require.Equal(t, int64(len(data)), resp.GetCommittedSize())
		got, err := cache.ReadBlob(t.Context(), s.store, of(data), 1<<20)
		require.NoError(t, err)
		require.True(t, data == string(got))
	}
}

func TestWriteRefuses(t *testing.T) {
	s := serve(t)
	hello := of("hello")
	name := "uploads/u/blobs/" + hello.String()
	msg := func(offset int64, data string, finish bool) *bspb.WriteRequest {
		return &bspb.WriteRequest{ResourceName: name, WriteOffset: offset, Data: []byte(data), FinishWrite: finish}
	}
	for what, msgs := range map[string][]*bspb.WriteRequest{
		"other bytes":        {msg(0, "hallo", true)},
		"too short":          {msg(0, "hell", true)},
		"too long":           {msg(0, "hello!", true)},
		"too long, later":    {msg(0, "hel", false), msg(3, "lo, world", true)},
		"never finished":     {msg(0, "hello", false)},
		"broken off":         {msg(0, "hel", false)},
		"a gap":              {msg(0, "hel", false), msg(4, "o", true)},
		"a step back":        {msg(0, "hel", false), msg(0, "hello", true)},
		"in the middle":      {msg(3, "lo", true)},
		"a negative offset":  {msg(-1, "hello", true)},
		"nothing but a name": {msg(0, "", true)},
	} {
		t.Run(what, func(t *testing.T) {
			msgs[0].ResourceName = "uploads/" + strings.ReplaceAll(what, " ", "-") + "/blobs/" + hello.String()
			_, err := send(t, s, msgs...)
			requireCode(t, codes.InvalidArgument, err, hello.Hash())
			missing, err := s.store.FindMissing(t.Context(), []digest.Digest{hello})
			require.NoError(t, err)
			require.Len(t, missing, 1)
		})
	}
	for _, bad := range []string{"", "blobs/" + hello.String(), "uploads/blobs/" + hello.String(), "uploads/u/compressed-blobs/brotli/" + hello.String()} {
		_, err := upload(t, s, bad, "hello")
		requireCode(t, codes.InvalidArgument, err, "uploads/UUID")
	}
	_, err := upload(t, s, name, "hello")
	require.NoError(t, err, "and after all that it can be uploaded")
}

// TestWriteOfWhatIsThere is answered with the whole size at once, whatever the client was about to send.
func TestWriteOfWhatIsThere(t *testing.T) {
	s := serve(t)
	data := strings.Repeat("x", 4<<20)
	d := put(t, s.store, data)
	resp, err := upload(t, s, "uploads/u/blobs/"+d.String(), data)
	require.NoError(t, err)
	require.Equal(t, d.Size(), resp.GetCommittedSize())
	// A client that was cut off before the answer came may go on where it was.
	resp, err = send(t, s, &bspb.WriteRequest{ResourceName: "uploads/u/blobs/" + d.String(), WriteOffset: 1000, Data: []byte("x")})
	require.NoError(t, err)
	require.Equal(t, d.Size(), resp.GetCommittedSize())
}

func TestQueryWriteStatus(t *testing.T) {
	s := serve(t)
	there, gone := put(t, s.store, "there"), of("gone")
	q := func(name string) (*bspb.QueryWriteStatusResponse, error) {
		return s.bytes.QueryWriteStatus(t.Context(), &bspb.QueryWriteStatusRequest{ResourceName: name})
	}
	resp, err := q("i/uploads/u/blobs/" + there.String())
	require.NoError(t, err)
	require.True(t, resp.GetComplete())
	require.Equal(t, int64(5), resp.GetCommittedSize())
	resp, err = q("uploads/u/blobs/" + gone.String())
	require.NoError(t, err)
	require.False(t, resp.GetComplete())
	require.Zero(t, resp.GetCommittedSize())
	_, err = q("blobs/" + there.String())
	requireCode(t, codes.InvalidArgument, err, "uploads/UUID")
}

// seekable is a CAS that reads from the middle of blobs, and not from their start if a reader wants less.
type seekable struct {
	*memory.Store
	t *testing.T
}

func (s seekable) Get(_ context.Context, d digest.Digest) (io.ReadCloser, error) {
	s.t.Errorf("the whole of %s was read", d)
	return nil, errDisk
}

func (s seekable) GetFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error) {
	rc, err := s.Store.Get(ctx, d)
	if err == nil {
		_, err = io.CopyN(io.Discard, rc, offset)
	}
	return rc, err
}

func TestReadFromTheMiddle(t *testing.T) {
	m := memory.New()
	d := put(t, m, "0123456789")
	s := dial(t, seekable{m, t}, nil)
	got, err := readAll(t, s, "blobs/"+d.String(), 4, 3)
	require.NoError(t, err)
	require.Equal(t, "456", got)
	got, err = readAll(t, s, "compressed-blobs/zstd/"+d.String(), 4, 0)
	require.NoError(t, err)
	require.Equal(t, "456789", decompress(t, got))
}
