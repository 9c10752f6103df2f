package server

import (
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/digest"
)

// FuzzPath checks that a path that is taken says what was understood.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/cas/" + hash, "/i/j/blake3/ac/" + hash, "/ac/x", "//", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		c, err := parsePath(path)
		if err != nil {
			require.Less(t, len(err.Error()), 2000)
			return
		}
		kind := "cas"
		if c.actions {
			kind = "ac"
		}
		require.True(t, strings.HasSuffix(path, kind+"/"+c.fn.FromSum(c.sum, 0).Hash()), path)
		require.True(t, strings.HasPrefix(strings.TrimPrefix(path, "/"), c.instance), path)
		require.Equal(t, strings.Contains(path, "/blake3/"+kind+"/") || strings.HasPrefix(path, "blake3/"+kind+"/"), c.fn == digest.BLAKE3, path)
	})
}

// FuzzRange checks that a range lies within the blob.
func FuzzRange(f *testing.F) {
	f.Add("bytes=1-5", int64(10))
	f.Add("bytes=-5", int64(3))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		from, n, partial, err := byteRange(header, size)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, from, int64(0))
		require.GreaterOrEqual(t, n, int64(0))
		require.LessOrEqual(t, n, size-from)
		require.True(t, partial || n == size)
	})
}

// FuzzMapping checks that the chunks of a mapping add up, and that it is written as it was read.
func FuzzMapping(f *testing.F) {
	blob := digest.FromBytes([]byte("hello, world"))
	for _, parts := range [][]string{{"hello, ", "world"}, {"hello, world"}, {"x"}, nil} {
		var m mapping
		for _, p := range parts {
			m.chunks = append(m.chunks, digest.FromBytes([]byte(p)))
		}
		b, err := m.encode()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMapping(b, blob)
		if err != nil {
			return
		}
		var size int64
		for _, c := range m.chunks {
			size += c.Size()
		}
		require.Equal(t, blob.Size(), size)
		again, err := m.encode()
		require.NoError(t, err)
		other, err := parseMapping(again, blob)
		require.NoError(t, err)
		require.Equal(t, m, other)
	})
}

// FuzzBody checks that what HTTP takes for an ActionResult under ac can be given back as one.
func FuzzBody(f *testing.F) {
	b, err := proto.Marshal(&repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "f", Digest: digest.Empty.Proto()}}})
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte("\xcc\xac\x01\x00 of ccache"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ar, ok := asResult(digest.SHA256, b)
		if !ok {
			return
		}
		again, err := proto.Marshal(ar)
		require.NoError(t, err)
		other, ok := asResult(digest.SHA256, again)
		require.True(t, ok)
		require.True(t, proto.Equal(ar, other))
	})
}

// FuzzLean holds the messages that are read by hand against the generated ones: what those take is understood the same.
func FuzzLean(f *testing.F) {
	d := digest.FromBytes([]byte("x")).Proto()
	for _, m := range []proto.Message{
		&repb.FindMissingBlobsRequest{InstanceName: "i", BlobDigests: []*repb.Digest{d, digest.Empty.Proto()}, DigestFunction: repb.DigestFunction_BLAKE3},
		&repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d}, AcceptableCompressors: []repb.Compressor_Value{1, 0}},
		&repb.BatchUpdateBlobsRequest{Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: d, Data: []byte("x"), Compressor: 1}}},
	} {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	same := func(t *testing.T, v repb.DigestFunction_Value, ps []*repb.Digest, ds []digest.Digest, bad error) {
		fn, err := digest.FunctionFromProto(v)
		if err != nil {
			require.Error(t, bad)
			return
		}
		var want []digest.Digest
		for _, p := range ps {
			w, err := fn.FromProto(p)
			if err != nil {
				require.Error(t, bad)
				return
			}
			want = append(want, w)
		}
		require.NoError(t, bad)
		require.Equal(t, len(want), len(ds))
		for i := range want {
			require.Equal(t, want[i], ds[i])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		find, leanFind := &repb.FindMissingBlobsRequest{}, &findRequest{}
		if err := leanFind.unmarshal(b); known(b, find) {
			require.NoError(t, err)
			require.Equal(t, find.GetInstanceName(), leanFind.instance)
			same(t, find.GetDigestFunction(), find.GetBlobDigests(), leanFind.digests, leanFind.err)
		}
		read, leanRead := &repb.BatchReadBlobsRequest{}, &readRequest{}
		if err := leanRead.unmarshal(b); known(b, read) {
			require.NoError(t, err)
			require.Equal(t, read.GetInstanceName(), leanRead.instance)
			require.Equal(t, len(read.GetAcceptableCompressors()), len(leanRead.compressors))
			same(t, read.GetDigestFunction(), read.GetDigests(), leanRead.digests, leanRead.err)
		}
		update, leanUpdate := &repb.BatchUpdateBlobsRequest{}, &updateRequest{}
		if err := leanUpdate.unmarshal(b); known(b, update) {
			require.NoError(t, err)
			require.Equal(t, update.GetInstanceName(), leanUpdate.instance)
			require.Equal(t, len(update.GetRequests()), len(leanUpdate.parts))
			for i, r := range update.GetRequests() {
				require.Equal(t, string(r.GetData()), string(leanUpdate.parts[i].data))
			}
		}
	})
}

// known parses b and reports whether that is a message of fields that REAPI has. Others are ignored by both, but one that
// has the number of a field and another type is not worth telling apart by hand.
func known(b []byte, m proto.Message) bool {
	all := m.ProtoReflect().New().Interface()
	return proto.Unmarshal(b, all) == nil && proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m) == nil && proto.Equal(all, m)
}
