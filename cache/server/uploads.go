package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// uploads are those in progress and those that were interrupted a short while ago.
//
// An upload is one Put into the CAS that outlives the stream that feeds it. When that breaks off, the Put waits, with all
// it has got so far where the CAS keeps what it is writing anyway: nothing is stored twice, no file is needed beside the
// CAS's own, and the stream that resumes the upload goes on feeding the same Put. To a CAS it looks like a slow client,
// and it is bounded as those are.
type uploads struct {
	limits Kept
	mu     sync.Mutex
	all    map[uploadKey]*upload
	idle   []*upload // without a stream, oldest first
	bytes  int64     // that the idle ones hold
	closed bool
	puts   sync.WaitGroup
}

// uploadKey names an upload. Only the one who began it goes on with it.
type uploadKey struct{ principal, name string }

type upload struct {
	key    uploadKey
	d      digest.Digest
	cancel context.CancelFunc
	pipe   *io.PipeWriter
	done   chan struct{} // closed when Put has returned
	err    error         // what it returned
	feed   chan struct{} // held by the one who writes to the pipe

	offset int64 // bytes that Put has taken; changed only with feed held, under uploads.mu
	stream int   // which stream feeds it, under uploads.mu
	timer  *time.Timer
}

func newUploads(k Kept) *uploads { return &uploads{limits: k, all: map[uploadKey]*upload{}} }

// begin starts an upload, in place of one of the same name.
func (us *uploads) begin(ctx context.Context, cas cache.CAS, key uploadKey, d digest.Digest) (*upload, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r, w := io.Pipe()
	u := &upload{key: key, d: d, cancel: cancel, pipe: w, done: make(chan struct{}), feed: make(chan struct{}, 1)}
	us.mu.Lock()
	if us.closed {
		us.mu.Unlock()
		cancel()
		return nil, errClosing
	}
	old := us.all[key]
	us.all[key] = u
	us.puts.Add(1)
	us.mu.Unlock()
	if old != nil {
		us.drop(old)
	}
	go func() {
		defer us.puts.Done()
		defer cancel()
		u.err = cas.Put(ctx, d, r)
		close(u.done)
		r.CloseWithError(errPutEnded)
		us.forget(u)
	}()
	return u, nil
}

// errPutEnded is what a stream is told that goes on writing when Put has ended: the blob has come by another way, or
// could not be stored.
var errPutEnded = errors.New("put has ended")

// resume returns the upload of that name and a number for the stream that goes on with it, and ends the right of the
// one before: a client that reconnects is often quicker than the news that its old connection is dead.
func (us *uploads) resume(key uploadKey, d digest.Digest) (u *upload, stream int, ok bool) {
	us.mu.Lock()
	defer us.mu.Unlock()
	u, ok = us.all[key]
	if !ok || u.d != d {
		return nil, 0, false
	}
	us.wake(u)
	u.stream++
	return u, u.stream, true
}

// wake takes an upload off the list of the idle ones. The caller holds mu.
func (us *uploads) wake(u *upload) {
	if u.timer == nil {
		return
	}
	u.timer.Stop()
	u.timer = nil
	for i, o := range us.idle {
		if o == u {
			us.idle = append(us.idle[:i], us.idle[i+1:]...)
			us.bytes -= u.offset
			return
		}
	}
}

// leave keeps an upload whose stream has broken off for a while, and gives up the oldest ones for it if need be.
func (us *uploads) leave(u *upload, stream int) {
	us.mu.Lock()
	if u.stream != stream || us.all[u.key] != u || u.timer != nil {
		us.mu.Unlock()
		return
	}
	us.bytes += u.offset
	us.idle = append(us.idle, u)
	u.timer = time.AfterFunc(us.limits.For, func() { us.expire(u, stream) })
	var drop []*upload
	for len(us.idle) > 0 && (us.closed || len(us.idle) > us.limits.Uploads || us.bytes > us.limits.Bytes) {
		oldest := us.idle[0]
		us.wake(oldest)
		delete(us.all, oldest.key)
		drop = append(drop, oldest)
	}
	us.mu.Unlock()
	for _, o := range drop {
		us.drop(o)
	}
}

// expire gives up an upload that nobody went on with.
func (us *uploads) expire(u *upload, stream int) {
	us.mu.Lock()
	late := u.stream != stream || u.timer == nil
	if !late { // from here on nobody can resume it
		us.wake(u)
		if us.all[u.key] == u {
			delete(us.all, u.key)
		}
	}
	us.mu.Unlock()
	if !late {
		us.drop(u)
	}
}

// drop ends an upload.
func (us *uploads) drop(u *upload) {
	u.cancel()
	u.pipe.CloseWithError(context.Canceled)
	us.forget(u)
}

func (us *uploads) forget(u *upload) {
	us.mu.Lock()
	defer us.mu.Unlock()
	us.wake(u)
	if us.all[u.key] == u {
		delete(us.all, u.key)
	}
}

// offset returns how many bytes of an upload are there.
func (us *uploads) offset(key uploadKey, d digest.Digest) int64 {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u, ok := us.all[key]; ok && u.d == d {
		return u.offset
	}
	return 0
}

// close drops all uploads and waits for their Puts to return.
func (us *uploads) close() {
	us.mu.Lock()
	us.closed = true
	var drop []*upload
	for _, u := range us.all {
		drop = append(drop, u)
	}
	us.mu.Unlock()
	for _, u := range drop {
		us.drop(u)
	}
	us.puts.Wait()
}

// write gives Put the bytes of one message. Those before the upload's offset it has already.
func (us *uploads) write(ctx context.Context, u *upload, stream int, at int64, data []byte) error {
	select {
	case u.feed <- struct{}{}:
		defer func() { <-u.feed }()
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	us.mu.Lock()
	offset, current := u.offset, u.stream
	us.mu.Unlock()
	if current != stream {
		return status.Errorf(codes.Aborted, "another stream goes on with the upload of %s", u.d)
	}
	if at > offset {
		return status.Errorf(codes.InvalidArgument, "upload of %s goes on at offset %d, not %d", u.d, at, offset)
	}
	data = data[min(offset-at, int64(len(data))):]
	for len(data) > 0 {
		n, err := u.pipe.Write(data)
		data = data[n:]
		us.moved(u, int64(n))
		if errors.Is(err, io.ErrClosedPipe) {
			return errPutEnded // another stream sent the last bytes
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moved counts what Put has taken. A stream that was overtaken may be inside of write yet while the upload is idle.
func (us *uploads) moved(u *upload, n int64) {
	us.mu.Lock()
	defer us.mu.Unlock()
	u.offset += n
	if u.timer != nil {
		us.bytes += n
	}
}

// wait returns how Put has ended.
func (u *upload) wait(ctx context.Context) error {
	select {
	case <-u.done:
		return u.err
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
