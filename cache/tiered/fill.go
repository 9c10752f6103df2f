package tiered

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// fills are the blobs on their way from the back, each fetched once however many wait for it.
type fills struct {
	dir     string
	mu      sync.Mutex
	running map[digest.Digest]*fill
	all     sync.WaitGroup
}

// fill is one blob on its way. What has come is in a file that has no name, from which any number of readers read while
// it grows.
type fill struct {
	d      digest.Digest
	f      *os.File // nil for a small blob, which is in memory
	cancel context.CancelFunc

	mu      sync.Mutex
	more    sync.Cond
	data    []byte // of a small blob, once it is whole
	n       int64  // bytes that have come
	done    bool
	err     error // why no more will come
	readers int
}

// read returns a reader of d from offset on, and begins to fetch it if nobody does yet.
func (fs *fills) read(ctx context.Context, c *Cache, d digest.Digest, offset int64) (io.ReadCloser, error) {
	if offset < 0 || offset > d.Size() {
		return nil, fmt.Errorf("read %s: offset %d is outside of it", d, offset)
	}
	f, own, err := fs.join(ctx, c, d)
	if errors.Is(err, errFilled) {
		return nil, err
	}
	if err != nil {
		// No room for the blob on its way: the caller gets it straight from the back.
		c.warn(err)
		return c.blobs.GetFrom(ctx, d, offset)
	}
	r := &fillReader{fs: fs, f: f, at: offset, ctx: ctx}
	r.stop = context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.more.Broadcast()
	})
	// Absence is found out before the first byte, not while reading.
	err = f.wait(ctx, 0)
	if err == nil || errors.Is(err, io.EOF) {
		return r, nil
	}
	if err := errors.Join(err, r.Close()); own || ctx.Err() != nil {
		return nil, err
	}
	// What was asked before this request began is no answer to it: the blob may have come since.
	return fs.read(ctx, c, d, offset)
}

// errFilled says that the blob is in the front by now.
var errFilled = errors.New("the near tier has it")

// join returns the fill of d, with one more reader, and whether it began with this reader. One that has failed is not
// joined.
func (fs *fills) join(ctx context.Context, c *Cache, d digest.Digest) (f *fill, own bool, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.running[d]; f != nil && !f.failed() {
		f.readers++
		return f, false, nil
	}
	// Was it filled since the front was asked?
	if missing, err := c.front.FindMissing(ctx, []digest.Digest{d}); err == nil && len(missing) == 0 {
		return nil, false, errFilled
	}
	f = &fill{d: d, readers: 1}
	f.more.L = &f.mu
	if d.Size() > small {
		fd, err := unix.Open(fs.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, false, fmt.Errorf("read %s: make a file in %s: %w", d, fs.dir, err)
		}
		f.f = os.NewFile(uintptr(fd), d.Short())
	}
	// The one who asked first may leave while others wait.
	fctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	fs.running[d] = f
	fs.all.Go(func() {
		err := f.fetch(fctx, c)
		f.finish(err)
		if err == nil {
			f.keep(context.WithoutCancel(fctx), c)
		}
		fs.mu.Lock()
		if fs.running[d] == f {
			delete(fs.running, d)
		}
		fs.mu.Unlock()
		fs.leave(f)
	})
	f.readers++ // the fetch itself
	return f, true, nil
}

// failed reports whether the fetch has ended without the blob.
func (f *fill) failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err != nil
}

// cancelled ends a fetch that is not done; false if it is.
func (f *fill) cancelled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.done {
		f.cancel()
	}
	return !f.done
}

// leave takes one reader away. The fetch alone is nobody: it ends when the last one that waits has left.
func (fs *fills) leave(f *fill) {
	fs.mu.Lock()
	f.readers--
	left := f.readers
	if left == 1 && fs.running[f.d] == f && f.cancelled() {
		delete(fs.running, f.d) // who comes now begins anew
	}
	fs.mu.Unlock()
	if left == 0 {
		f.cancel()
		if f.f != nil {
			f.f.Close()
		}
	}
}

// fetch copies the blob from the back.
func (f *fill) fetch(ctx context.Context, c *Cache) error {
	if f.f == nil {
		b, err := cache.ReadBlob(ctx, c.back, f.d, small)
		f.mu.Lock()
		f.data, f.n = b, int64(len(b))
		f.mu.Unlock()
		return err
	}
	rc, err := c.back.Get(ctx, f.d)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = io.CopyBuffer(f, struct{ io.Reader }{rc}, make([]byte, 256<<10))
	return err
}

// Write appends what has come.
func (f *fill) Write(p []byte) (int, error) {
	n, err := f.f.WriteAt(p, f.n)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n += int64(n)
	f.more.Broadcast()
	return n, err
}

func (f *fill) finish(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done, f.err = true, err
	f.more.Broadcast()
}

// keep puts the blob, which is whole now, into the front.
func (f *fill) keep(ctx context.Context, c *Cache) {
	if f.f == nil {
		c.keep(ctx, []cache.Blob{{Digest: f.d, Data: f.data}})
		return
	}
	if err := c.front.Put(ctx, f.d, io.NewSectionReader(f.f, 0, f.n)); err != nil && ctx.Err() == nil {
		c.warn(fmt.Errorf("write to the near tier: %w", err))
	}
}

// wait returns when more than n bytes have come; io.EOF when that is all there is.
func (f *fill) wait(ctx context.Context, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.n <= n && !f.done && ctx.Err() == nil {
		f.more.Wait()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case f.err != nil:
		return f.err
	case f.n > n:
		return nil
	}
	return io.EOF
}

// fillReader reads what has come, and waits for what has not.
type fillReader struct {
	fs   *fills
	f    *fill
	at   int64
	ctx  context.Context
	stop func() bool
	once sync.Once
}

func (r *fillReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.f.wait(r.ctx, r.at); err != nil {
		return 0, err
	}
	r.f.mu.Lock()
	come, data, last := r.f.n, r.f.data, r.f.done
	r.f.mu.Unlock()
	if come == r.f.d.Size() && !last {
		// The last bytes are handed on only when all is known to be right.
		if come--; come == r.at {
			if err := r.f.whole(r.ctx); err != nil {
				return 0, err
			}
			come++
		}
	}
	n := int(min(int64(len(p)), come-r.at))
	var err error
	if r.f.f == nil {
		n, err = bytes.NewReader(data).ReadAt(p[:n], r.at)
	} else {
		n, err = r.f.f.ReadAt(p[:n], r.at)
	}
	r.at += int64(n)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// whole waits for the end of the fetch.
func (f *fill) whole(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.done && ctx.Err() == nil {
		f.more.Wait()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return f.err
}

func (r *fillReader) Close() error {
	r.once.Do(func() {
		r.stop()
		r.fs.leave(r.f)
	})
	return nil
}
