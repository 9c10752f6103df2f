package server

import (
	"context"
	"sync"
	"time"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that leanCodec falls back on
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// leanCodec hands blobs, and their parts, to gRPC as they are. The codec it stands in for would copy each into a buffer from
// a pool whose next size after 32 KiB is 1 MiB: with many readers that is most of a server's memory.
type leanCodec struct{ encoding.CodecV2 }

func newLeanCodec() leanCodec { return leanCodec{encoding.GetCodecV2("proto")} }

func (c leanCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *part:
		return m.buffers(), nil
	case *readResponse:
		return m.buffers(), nil
	}
	return c.CodecV2.Marshal(v)
}

// partSize is how much of a blob is in one message, at most: as much as package pack has in one frame.
const partSize = 128 << 10

// smallPart is the size up to which the memory of a part is left to the garbage collector.
const smallPart = 16 << 10

// part is a bspb.ReadResponse. Its memory counts against the budget until gRPC has sent it.
type part struct {
	data    []byte // what to fill, then what to send
	all     *[]byte
	release func()
	handed  bool // to gRPC, which frees it
}

var partBuffers = sync.Pool{New: func() any { b := make([]byte, partSize); return &b }}

var readPartType = (&bspb.ReadResponse{}).ProtoReflect()

// part returns one for up to size bytes, as soon as there is room for it.
func (b *budget) part(ctx context.Context, size int64) (*part, error) {
	if size <= smallPart {
		return &part{data: make([]byte, size)}, nil
	}
	release, err := b.lease(ctx, partSize)
	if err != nil {
		return nil, err
	}
	return newPart(size, release), nil
}

// newPart returns a part for up to size bytes, whose room the caller has.
func newPart(size int64, release func()) *part {
	if size <= smallPart {
		release()
		return &part{data: make([]byte, size)}
	}
	all := partBuffers.Get().(*[]byte)
	return &part{data: *all, all: all, release: release}
}

// leaseTime is how long a client may take to take what was sent to it, 128 KiB mostly. Afterwards that counts no more:
// others would wait for a client that does nothing. (What it holds then is bounded by the calls at a time, and a stream is
// ended by its watch.)
const leaseTime = 5 * time.Second

// lease is take for what gRPC holds after the call has ended. What it returns may be called from anywhere.
func (b *budget) lease(ctx context.Context, n int64) (release func(), err error) {
	n = min(n, b.all)
	if err := b.acquire(ctx, n); err != nil {
		return nil, err
	}
	var once sync.Once
	give := func() { once.Do(func() { b.sem.Release(n) }) }
	timer := time.AfterFunc(b.lend, give)
	return func() {
		timer.Stop()
		give()
	}, nil
}

// buffers encodes the part: a field's head, and the data.
func (p *part) buffers() mem.BufferSlice {
	p.handed = true
	if len(p.data) == 0 {
		p.free()
		return nil
	}
	head := protowire.AppendVarint([]byte{bytesField}, uint64(len(p.data)))
	if p.all == nil {
		return mem.BufferSlice{mem.SliceBuffer(append(head, p.data...))}
	}
	return mem.BufferSlice{mem.SliceBuffer(head), mem.NewBuffer(&p.data, p)}
}

// bytesField is the tag of ReadResponse.data.
const bytesField = 10<<3 | 2

// Get implements mem.BufferPool; nobody gets anything from a part.
func (p *part) Get(length int) *[]byte { b := make([]byte, length); return &b }

// Put implements mem.BufferPool: the data was sent.
func (p *part) Put(*[]byte) { p.free() }

// free gives the memory back. It is called once: by gRPC when it was given the part, and else by whoever got it.
func (p *part) free() {
	if p.all != nil {
		partBuffers.Put(p.all)
		p.release()
		p.all = nil
	}
}

// send sends the part, and frees it if gRPC never got to see it.
func (p *part) send(stream bspb.ByteStream_ReadServer) error {
	err := stream.SendMsg(p)
	if !p.handed {
		p.free()
	}
	return err
}

// GetData is what the generated message has, too.
func (p *part) GetData() []byte { return p.data }

// Without leanCodec a part is encoded like any other message.
func (p *part) ProtoReflect() protoreflect.Message { return leanMessage{readPartType, p} }
func (p *part) Reset()                             { *p = part{} }
func (p *part) unmarshal([]byte) error             { return nil }

func (p *part) size() int {
	if len(p.data) == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(len(p.data))
}

func (p *part) marshal(b []byte) []byte {
	p.handed = true
	if len(p.data) > 0 {
		b = protowire.AppendBytes(append(b, bytesField), p.data)
	}
	p.free()
	return b
}
