package tiered

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/pack"
)

// far is a back in memory that can be cut off, be slow, and counts what it is asked.
type far struct {
	*memory.Store
	mu      sync.Mutex
	results map[digest.Digest]digest.Digest
	gets    atomic.Int32
	down    atomic.Bool
	gate    chan struct{} // each part of a blob waits for one, if not nil
}

func newFar() *far { return &far{Store: memory.New(), results: map[digest.Digest]digest.Digest{}} }

var errDown = errors.New("the bucket can't be reached")

func (f *far) up(ctx context.Context) error {
	if f.down.Load() {
		return errDown
	}
	return ctx.Err()
}

func (f *far) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	f.gets.Add(1)
	if err := f.up(ctx); err != nil {
		return nil, err
	}
	rc, err := f.Store.Get(ctx, d)
	if err != nil || f.gate == nil {
		return rc, err
	}
	return io.NopCloser(gated{rc, f, ctx}), nil
}

type gated struct {
	r   io.Reader
	f   *far
	ctx context.Context
}

func (g gated) Read(p []byte) (int, error) {
	select {
	case <-g.f.gate:
		return g.r.Read(p[:min(len(p), 100<<10)])
	case <-g.ctx.Done():
		return 0, g.ctx.Err()
	}
}

func (f *far) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := f.up(ctx); err != nil {
		return err
	}
	return f.Store.Put(ctx, d, r)
}

func (f *far) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	if err := f.up(ctx); err != nil {
		return nil, err
	}
	return f.Store.FindMissing(ctx, ds)
}

func (f *far) UpdateActionResult(ctx context.Context, action digest.Digest, ar *repb.ActionResult) error {
	if err := f.up(ctx); err != nil {
		return err
	}
	d, err := cache.PutMessage(ctx, f.Store, ar)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.results[action] = d
	return nil
}

func (f *far) GetAction(ctx context.Context, action digest.Digest) (digest.Digest, error) {
	if err := f.up(ctx); err != nil {
		return digest.Digest{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.results[action]
	if !ok {
		return d, cache.NotFound("result of action", action)
	}
	return d, nil
}

func open(t *testing.T, dir string) *pack.Store {
	s, err := pack.Open(dir, pack.Options{MaxBytes: 256 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func near(t *testing.T) *pack.Cache {
	c, err := open(t, t.TempDir()).Namespace("")
	require.NoError(t, err)
	return c
}

// tiers returns a front and a back as one, and waits for them before the front is closed.
func tiers(t *testing.T, front cache.CAS, back Back, warn func(error)) *Cache {
	c := New(front, back, t.TempDir(), warn)
	t.Cleanup(c.Wait)
	return c
}

// quiet fails the test if anything goes wrong in the front.
func quiet(t *testing.T) func(error) { return func(err error) { t.Errorf("warned: %v", err) } }

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func TestTiers(t *testing.T) {
	cachetest.TestCAS(t, func(t *testing.T) cache.CAS { return tiers(t, near(t), newFar(), quiet(t)) })
	cachetest.TestActionCache(t, func(t *testing.T) (cache.CAS, cache.ActionCache) {
		c := tiers(t, near(t), newFar(), quiet(t))
		return c, c
	})
}

// TestEmptyFront reads everything from the back: it passes the same suite when nothing stays in the front.
func TestEmptyFront(t *testing.T) {
	cachetest.TestCAS(t, func(t *testing.T) cache.CAS { return tiers(t, forgetful{}, newFar(), quiet(t)) })
}

// forgetful keeps nothing.
type forgetful struct{}

func (forgetful) Get(_ context.Context, d digest.Digest) (io.ReadCloser, error) {
	return nil, cache.NotFound("blob", d)
}

func (forgetful) Put(_ context.Context, _ digest.Digest, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	if errors.Is(err, errUnread) {
		err = nil
	}
	return err
}

func (forgetful) FindMissing(_ context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	return ds, nil
}

func put(t *testing.T, c cache.CAS, b []byte) digest.Digest {
	d, err := cache.PutBlob(t.Context(), c, b)
	require.NoError(t, err)
	return d
}

// TestOneFetch has many ask for a blob at one time: it is fetched once, and the first bytes are handed on before the
// last have come.
func TestOneFetch(t *testing.T) {
	for _, size := range []int{1000, 3 << 20} {
		back := newFar()
		b := random(1, size)
		d := put(t, back.Store, b)
		back.gate = make(chan struct{})
		c := tiers(t, near(t), back, quiet(t))
		var wg sync.WaitGroup
		first := make(chan struct{}, 20)
		for i := range 20 {
			wg.Go(func() {
				rc, err := c.GetFrom(t.Context(), d, int64(i))
				if err != nil {
					t.Error(err)
					return
				}
				defer rc.Close()
				head := make([]byte, 1)
				_, err = io.ReadFull(rc, head)
				first <- struct{}{}
				rest, err2 := io.ReadAll(rc)
				if err != nil || err2 != nil || !bytes.Equal(b[i:], append(head, rest...)) {
					t.Errorf("reader %d: %v, %v, %d bytes", i, err, err2, len(rest)+1)
				}
			})
		}
		back.gate <- struct{}{}
		if size > small {
			for range 20 {
				<-first // though nothing but the first part has been let through
			}
		}
		close(back.gate)
		wg.Wait()
		require.Equal(t, int32(1), back.gets.Load())
		require.Eventually(t, func() bool {
			m, err := c.front.FindMissing(t.Context(), []digest.Digest{d})
			return err == nil && len(m) == 0
		}, 10*time.Second, time.Millisecond, "the front was filled on the way")
		got, err := cache.ReadBlob(t.Context(), c, d, int64(size))
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, got))
		require.Equal(t, int32(1), back.gets.Load(), "read from the front")
	}
}

// TestLeave has all readers leave: the fetch ends, and the next one begins anew.
func TestLeave(t *testing.T) {
	back := newFar()
	b := random(1, 3<<20)
	d := put(t, back.Store, b)
	back.gate = make(chan struct{}, 1)
	c := tiers(t, near(t), back, quiet(t))
	ctx, cancel := context.WithCancel(t.Context())
	back.gate <- struct{}{}
	rc, err := c.Get(ctx, d)
	require.NoError(t, err)
	cancel()
	_, err = io.ReadAll(rc)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, rc.Close())
	close(back.gate)
	got, err := cache.ReadBlob(t.Context(), c, d, int64(len(b)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, got))
	require.Equal(t, int32(2), back.gets.Load())
}

// TestBrokenFront has the front fail in every way: only warnings come of it.
func TestBrokenFront(t *testing.T) {
	back := newFar()
	store := open(t, t.TempDir())
	front, err := store.Namespace("")
	require.NoError(t, err)
	var warnings atomic.Int32
	c := New(front, back, "/no/such/directory", func(error) { warnings.Add(1) })
	require.NoError(t, store.Close())
	for _, size := range []int{1000, 3 << 20} {
		b := random(uint64(size), size)
		d := put(t, c, b)
		got, err := cache.ReadBlob(t.Context(), c, d, int64(size))
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, got))
	}
	require.Positive(t, warnings.Load())
	back.down.Store(true)
	_, err = c.Get(t.Context(), digest.FromBytes(random(9, 10)))
	require.ErrorIs(t, err, errDown)
	require.NotErrorIs(t, err, cache.ErrNotFound, "a bucket that can't be reached is not a miss")
}

func delayed(t *testing.T, dir string, back *far, warn func(error)) (*WriteBack, *Delayed) {
	both := tiers(t, near(t), back, warn)
	w, err := OpenWriteBack(dir, 64<<20, func(string) (*Cache, error) { return both, nil }, warn)
	require.NoError(t, err)
	t.Cleanup(func() { w.Close() })
	c, err := w.Namespace("")
	require.NoError(t, err)
	return w, c
}

func TestWriteBackSuite(t *testing.T) {
	cachetest.TestCAS(t, func(t *testing.T) cache.CAS { _, c := delayed(t, t.TempDir(), newFar(), quiet(t)); return c })
	cachetest.TestActionCache(t, func(t *testing.T) (cache.CAS, cache.ActionCache) {
		_, c := delayed(t, t.TempDir(), newFar(), quiet(t))
		return c, c
	})
}

// TestWriteBack writes while the bucket can't be reached, restarts, and has it come back.
func TestWriteBack(t *testing.T) {
	back := newFar()
	back.down.Store(true)
	dir := t.TempDir()
	w, c := delayed(t, dir, back, func(error) {})
	var bs [][]byte
	for i := range uint64(50) {
		bs = append(bs, random(i, 10_000))
	}
	bs = append(bs, random(100, 3<<20))
	for _, b := range bs {
		put(t, c, b)
	}
	action := digest.FromBytes([]byte("action"))
	ctx := cache.WithPrincipal(t.Context(), "bob")
	for i := range int32(3) {
		require.NoError(t, c.UpdateActionResult(ctx, action, &repb.ActionResult{ExitCode: i}))
	}
	check := func(c *Delayed) {
		for _, b := range bs {
			got, err := cache.ReadBlob(t.Context(), c, digest.FromBytes(b), int64(len(b)))
			require.NoError(t, err)
			require.True(t, bytes.Equal(b, got))
		}
		ar, err := c.GetActionResult(t.Context(), action)
		require.NoError(t, err)
		require.Equal(t, int32(2), ar.GetExitCode())
	}
	check(c)
	require.NoError(t, w.Close())
	w, c = delayed(t, dir, back, func(error) {})
	check(c)
	require.Equal(t, len(bs)+1, w.Pending())
	back.down.Store(false)
	require.Eventually(t, func() bool { return w.Pending() == 0 }, 30*time.Second, 5*time.Millisecond)
	check(c)
	for _, b := range bs {
		missing, err := back.FindMissing(t.Context(), []digest.Digest{digest.FromBytes(b)})
		require.NoError(t, err)
		require.Empty(t, missing)
	}
	_, err := back.GetAction(t.Context(), action)
	require.NoError(t, err)
}

// TestFullJournal passes the journal by, blob by blob, when it is full.
func TestFullJournal(t *testing.T) {
	back := newFar()
	back.down.Store(true)
	_, c := delayed(t, t.TempDir(), back, func(error) {})
	var err error
	n := uint64(0)
	for ; err == nil; n++ {
		_, err = cache.PutBlob(t.Context(), c, random(n, 1<<20))
		require.Less(t, n, uint64(100))
	}
	require.ErrorIs(t, err, errDown, "neither the journal nor the bucket can take it")
	require.Greater(t, n, uint64(40))
}

// TestFrontIsFilled looks into the front after writes: what was just written is read again soon.
func TestFrontIsFilled(t *testing.T) {
	c := tiers(t, near(t), newFar(), quiet(t))
	for _, size := range []int{1000, 3 << 20} {
		d := put(t, c, random(uint64(size), size))
		missing, err := c.front.FindMissing(t.Context(), []digest.Digest{d})
		require.NoError(t, err)
		require.Empty(t, missing, "%d bytes", size)
	}
}

// TestLateReader asks while an earlier question, whose answer is going to be no, is under way: it gets an answer of its own.
func TestLateReader(t *testing.T) {
	back := newFar()
	slow := &slowMiss{far: back, asked: make(chan struct{}), answer: make(chan struct{})}
	c := tiers(t, near(t), slow, quiet(t))
	b := random(1, 1000)
	d := digest.FromBytes(b)
	first := make(chan error, 1)
	go func() {
		_, err := c.Get(t.Context(), d)
		first <- err
	}()
	<-slow.asked
	put(t, back.Store, b) // by another node
	late := make(chan error, 1)
	go func() {
		got, err := cache.ReadBlob(t.Context(), c, d, 1000)
		if err == nil && !bytes.Equal(b, got) {
			err = errors.New("other bytes")
		}
		late <- err
	}()
	require.Eventually(t, func() bool {
		c.fills.mu.Lock()
		defer c.fills.mu.Unlock()
		return c.fills.running[d] != nil && c.fills.running[d].readers == 3
	}, 10*time.Second, time.Millisecond)
	close(slow.answer)
	require.ErrorIs(t, <-first, cache.ErrNotFound)
	require.NoError(t, <-late)
}

// slowMiss looks at once, the first time, and answers when it is told to.
type slowMiss struct {
	*far
	once          sync.Once
	asked, answer chan struct{}
}

func (s *slowMiss) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	rc, err := s.far.Get(ctx, d)
	s.once.Do(func() {
		close(s.asked)
		<-s.answer
	})
	return rc, err
}
