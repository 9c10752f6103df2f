package main

import (
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// encoder makes requests for one instance of a cache.
type encoder struct {
	instance string
	chunk    int // the most data in one ByteStream message
}

// must encodes a message of this program's own making, which cannot fail.
func must(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func (e encoder) resource(rest string) string {
	if e.instance == "" {
		return rest
	}
	return e.instance + "/" + rest
}

func digests(bs []blob) []*repb.Digest {
	ds := make([]*repb.Digest, len(bs))
	for i, b := range bs {
		ds[i] = b.digest()
	}
	return ds
}

func (e encoder) update(bs []blob) *message {
	req := &repb.BatchUpdateBlobsRequest{InstanceName: e.instance}
	for _, b := range bs {
		req.Requests = append(req.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: b.digest(), Data: b.data})
	}
	return encoded(must(req))
}

func (e encoder) readBatch(bs []blob) *message {
	return encoded(must(&repb.BatchReadBlobsRequest{InstanceName: e.instance, Digests: digests(bs)}))
}

func (e encoder) missing(bs []blob) *message {
	return encoded(must(&repb.FindMissingBlobsRequest{InstanceName: e.instance, BlobDigests: digests(bs)}))
}

func (e encoder) read(b blob) *message {
	return encoded(must(&bspb.ReadRequest{ResourceName: e.resource(b.name())}))
}

// write returns the messages of a ByteStream Write. They share b's bytes.
func (e encoder) write(b blob) []*message {
	h := b.hash
	name := e.resource(fmt.Sprintf("uploads/%s-%s-4%s-8%s-%s/%s", h[:8], h[8:12], h[13:16], h[17:20], h[20:32], b.name()))
	var ms []*message
	for off := 0; ; {
		data := b.data[off:min(off+e.chunk, len(b.data))]
		head := must(&bspb.WriteRequest{ResourceName: name, WriteOffset: int64(off), FinishWrite: off+len(data) == len(b.data)})
		head = protowire.AppendTag(head, 10, protowire.BytesType)
		ms = append(ms, encoded(protowire.AppendVarint(head, uint64(len(data))), data))
		if off += len(data); off == len(b.data) {
			return ms
		}
	}
}

func (e encoder) get(action blob) *message {
	return encoded(must(&repb.GetActionResultRequest{InstanceName: e.instance, ActionDigest: action.digest()}))
}

// result stores an ActionResult with one output file for each of outputs.
func (e encoder) result(action blob, outputs []blob) *message {
	ar := &repb.ActionResult{StdoutRaw: []byte("built " + action.hash[:8] + "\n")}
	for i, b := range outputs {
		ar.OutputFiles = append(ar.OutputFiles, &repb.OutputFile{Path: fmt.Sprintf("bazel-out/bin/pkg/out%d.o", i), Digest: b.digest()})
	}
	return encoded(must(&repb.UpdateActionResultRequest{InstanceName: e.instance, ActionDigest: action.digest(), ActionResult: ar}))
}

// fields calls each with the fields of a message that hold bytes.
func fields(b []byte, each func(num protowire.Number, v []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := each(num, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

var errWrong = errors.New("the server answered wrongly")

// updated checks a BatchUpdateBlobsResponse: want blobs, each with status OK.
func updated(b []byte, want int) error {
	err := fields(b, func(_ protowire.Number, entry []byte) error {
		want--
		return fields(entry, func(num protowire.Number, v []byte) error {
			// A status of OK is empty: the code is its first field.
			if num == 2 && len(v) > 0 && v[0] == 0x08 && v[1] != 0 {
				return fmt.Errorf("%w: a blob of a batch was refused: %q", errWrong, v)
			}
			return nil
		})
	})
	if err == nil && want != 0 {
		err = fmt.Errorf("%w: %d blobs of a batch are not in the answer", errWrong, want)
	}
	return err
}

// readAll checks a BatchReadBlobsResponse against the blobs that were asked for, contents and all.
func readAll(b []byte, want []blob) error {
	var resp repb.BatchReadBlobsResponse
	if err := proto.Unmarshal(b, &resp); err != nil {
		return err
	}
	hashes := make(map[string]bool, len(want))
	for _, w := range want {
		hashes[w.hash] = true
	}
	for _, r := range resp.GetResponses() {
		got := newBlob(r.GetData())
		if r.GetStatus().GetCode() != 0 || got.hash != r.GetDigest().GetHash() {
			return fmt.Errorf("%w: blob %s came back as %s, status %d", errWrong, r.GetDigest().GetHash(), got.hash, r.GetStatus().GetCode())
		}
		delete(hashes, got.hash)
	}
	if len(hashes) > 0 {
		return fmt.Errorf("%w: %d blobs of a batch are not in the answer", errWrong, len(hashes))
	}
	return nil
}

// payload returns how much data a ReadResponse holds, by its head alone.
func (a *answer) payload() (int64, error) {
	num, typ, n := protowire.ConsumeTag(a.head[:a.headed])
	if n < 0 || num != 10 || typ != protowire.BytesType {
		return 0, fmt.Errorf("%w: a ReadResponse begins with %x", errWrong, a.head[:a.headed])
	}
	size, m := protowire.ConsumeVarint(a.head[n:a.headed])
	if m < 0 || n+m+int(size) > a.size {
		return 0, fmt.Errorf("%w: a ReadResponse begins with %x", errWrong, a.head[:a.headed])
	}
	return int64(size), nil
}

// committed checks a WriteResponse.
func (a *answer) committed(size int64) error {
	var resp bspb.WriteResponse
	if err := proto.Unmarshal(a.bytes, &resp); err != nil {
		return err
	}
	if resp.GetCommittedSize() != size {
		return fmt.Errorf("%w: committed_size %d after %d bytes", errWrong, resp.GetCommittedSize(), size)
	}
	return nil
}
