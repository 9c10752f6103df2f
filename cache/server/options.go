package server

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Option is a choice of the one who serves.
type Option func(*settings)

type settings struct {
	memory room
	kept   Kept
	spool  string
	idle   time.Duration
}

func defaults() settings {
	return settings{
		memory: newRoom(512 << 20),
		kept:   Kept{Uploads: 64, Bytes: 4 << 30, For: 2 * time.Minute},
		idle:   time.Minute,
	}
}

// WithMemory sets how many bytes of buffers all calls together may hold at a time: 512 MiB if not said. A call that would
// exceed that waits for others to end. Servers that get the same Option, one for gRPC and one for HTTP, share the memory.
func WithMemory(bytes int64) Option {
	m := newRoom(bytes)
	return func(s *settings) { s.memory = m }
}

// Kept limits what is kept of uploads that were interrupted, so that they can be resumed.
type Kept struct {
	Uploads int
	Bytes   int64
	For     time.Duration
}

// WithKept sets what is kept of interrupted uploads: 64 of them, 4 GiB and two minutes if not said; nothing of the
// zero value.
func WithKept(k Kept) Option { return func(s *settings) { s.kept = k } }

// WithSpool sets the directory for uploads whose size is known only at their end, which HTTP allows. Without it that is
// the system's directory for temporary files.
func WithSpool(dir string) Option { return func(s *settings) { s.spool = dir } }

// WithIdle sets how long an HTTP client may take to send or take 64 KiB, or all of a body: a minute if not said. For gRPC,
// see [Limits].
func WithIdle(d time.Duration) Option { return func(s *settings) { s.idle = d } }

// room is what buffers may take up, in two parts.
type room struct {
	budget  *budget // of what the server works with
	waiting *budget // of what is held while a client sends: slow ones wait for each other, and nobody for them
}

func newRoom(bytes int64) room { return room{newBudget(bytes - bytes/4), newBudget(bytes / 4)} }

// budget is the memory that all calls share.
type budget struct {
	sem  *semaphore.Weighted
	all  int64
	lend time.Duration // for which a lease counts
}

func newBudget(bytes int64) *budget { return &budget{semaphore.NewWeighted(bytes), bytes, leaseTime} }

// take waits until n bytes are free, all of them if n is more, and returns what gives them back.
func (b *budget) take(ctx context.Context, n int64) (release func(), err error) {
	n = min(n, b.all)
	if err := b.acquire(ctx, n); err != nil {
		return nil, err
	}
	return func() { b.sem.Release(n) }, nil
}

func (b *budget) acquire(ctx context.Context, n int64) error {
	if err := b.sem.Acquire(ctx, n); err != nil {
		return status.FromContextError(err).Err()
	}
	return nil
}

// tryTake takes n bytes if they are free now.
func (b *budget) tryTake(n int64) (release func(), ok bool) {
	if !b.sem.TryAcquire(n) {
		return nil, false
	}
	return func() { b.sem.Release(n) }, true
}

// chunks of a stream: the small ones serve many readers at once within the same memory.
const (
	largeChunk = 256 << 10
	smallChunk = 64 << 10
)

// buffer returns a buffer for a stream of size bytes. What gRPC makes of it takes as much again.
func (b *budget) buffer(ctx context.Context, size int64) ([]byte, func(), error) {
	n := min(size+1, largeChunk)
	if n <= smallChunk {
		release, err := b.take(ctx, 2*n)
		return make([]byte, n), release, err
	}
	// The last half of the budget is dealt out in small portions.
	if release, ok := b.tryTake(b.all / 2); ok {
		release()
		if release, ok := b.tryTake(2 * n); ok {
			return make([]byte, n), release, nil
		}
	}
	release, err := b.take(ctx, 2*smallChunk)
	return make([]byte, smallChunk), release, err
}

var errClosing = status.Error(codes.Unavailable, "the server is closing")
