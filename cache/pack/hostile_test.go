package pack

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

func TestShortRetention(t *testing.T) {
	for _, r := range []time.Duration{-time.Hour, 1, time.Second, 2*time.Second - 1} {
		_, err := Open(t.TempDir(), Options{MaxBytes: 64 << 20, Retention: r})
		require.ErrorContains(t, err, "too short")
	}
	openAt(t, t.TempDir(), Options{Retention: 2 * time.Second})
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, Options{})
	d := put(t, ns(t, s, "a"), text(1, 1000))
	_, ok := s.Lookup("b")
	require.False(t, ok)
	require.NoError(t, s.Close())
	s = openAt(t, dir, Options{})
	_, ok = s.Lookup("b")
	require.False(t, ok, "asking for it did not make it")
	a, ok := s.Lookup("a")
	require.True(t, ok)
	require.Empty(t, missing(t, a, d))
}

// TestNamesLost refuses a store whose names are gone: a new name would get the number, and so the content, of another.
func TestNamesLost(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, Options{})
	put(t, ns(t, s, "secret"), text(1, 1000))
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(filepath.Join(dir, namesFile)))
	_, err := Open(dir, Options{MaxBytes: 64 << 20})
	require.ErrorContains(t, err, "restore that file")
}

// TestFailedOpenLeaksNothing has one of several segments unreadable.
func TestFailedOpenLeaksNothing(t *testing.T) {
	dir := t.TempDir()
	for i := range uint64(5) {
		s := openAt(t, dir, Options{})
		put(t, ns(t, s, ""), text(i, 1000))
		require.NoError(t, s.Close())
	}
	bad := filepath.Join(dir, "segments", "00000003")
	require.NoError(t, os.Remove(bad))
	require.NoError(t, os.Mkdir(bad, 0o700))
	open := func() (n int) {
		links, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		for _, l := range links {
			if to, _ := os.Readlink("/proc/self/fd/" + l.Name()); len(to) > len(dir) && to[:len(dir)] == dir {
				n++
			}
		}
		return n
	}
	_, err := Open(dir, Options{MaxBytes: 64 << 20})
	require.ErrorContains(t, err, "00000003")
	require.Zero(t, open())
}

// TestDamagedIndex harms a segment's index in every way: it is made again from the records.
func TestDamagedIndex(t *testing.T) {
	for name, harm := range map[string]func(b []byte) []byte{
		"empty":   func([]byte) []byte { return nil },
		"cut":     func(b []byte) []byte { return b[:len(b)-itemSize] },
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"zeros":   func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openAt(t, dir, Options{})
			c := ns(t, s, "")
			path := s.segmentPath(s.active.id) + indexSuffix
			for i := range uint64(5) {
				put(t, c, random(i, 1000))
			}
			put(t, c, random(9, 1<<20))
			require.NoError(t, s.Close())
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, harm(b), 0o600))
			c = ns(t, openAt(t, dir, Options{}), "")
			for i := range uint64(5) {
				requireBlob(t, c, random(i, 1000))
			}
			requireBlob(t, c, random(9, 1<<20))
		})
	}
}

// TestClockBack restarts a store with a clock that is a day slow, and sets it right: what was promised meanwhile stays.
func TestClockBack(t *testing.T) {
	clk := newClock()
	dir := t.TempDir()
	opts := Options{MaxBytes: 64 << 20, Retention: 3 * time.Hour, Now: clk.time}
	s := openAt(t, dir, opts)
	put(t, ns(t, s, ""), random(1, 1000))
	was := s.seconds()
	require.NoError(t, s.Close())
	clk.forward(-24 * time.Hour)
	s = openAt(t, dir, opts)
	require.GreaterOrEqual(t, s.seconds(), was)
	clk.forward(20 * time.Hour)
	require.GreaterOrEqual(t, s.seconds(), was+20*3600, "it goes on from there")
	c := ns(t, s, "")
	require.Empty(t, missing(t, c, digest.FromBytes(random(1, 1000))))
	require.NoError(t, s.Close())
	s = openAt(t, dir, opts)
	d := digest.FromBytes(random(1, 1000))
	r := refOf(d, ns(t, s, "").ns, 0)
	clk.forward(3*time.Hour - time.Minute)
	require.True(t, s.promised(s.table.find(&r), s.seconds()), "for three hours from when it was found")
}

// TestMonotonic has the machine's clock jump within a run: time as promises are counted by does not.
func TestMonotonic(t *testing.T) {
	began := time.Now()
	var tl timeline
	now := began
	tl.begin(func() time.Time { return now })
	now = began.Add(-24 * time.Hour)
	require.Equal(t, uint32(began.Unix()), tl.seconds())
	now = began.Add(time.Minute)
	require.Equal(t, uint32(began.Unix()+60), tl.seconds())
}

// gatedReader yields b and then waits.
type gatedReader struct {
	r       io.Reader
	reached chan struct{}
	more    chan struct{}
}

func (g *gatedReader) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if err == io.EOF {
		close(g.reached)
		<-g.more
	}
	return n, err
}

// TestUploadsCount has uploads under way that together are more than fits: the last is refused, and what they held is
// given back however they end.
func TestUploadsCount(t *testing.T) {
	s := openAt(t, t.TempDir(), Options{MaxBytes: 64 << 20})
	c := ns(t, s, "")
	b := random(1, 30<<20)
	g := &gatedReader{bytes.NewReader(b), make(chan struct{}), make(chan struct{})}
	first := make(chan error, 1)
	go func() { first <- c.Put(t.Context(), digest.FromBytes(b), g) }()
	<-g.reached
	require.GreaterOrEqual(t, s.Stats().Bytes, int64(len(b)), "counted before it is stored")
	other := random(2, 40<<20)
	require.ErrorIs(t, c.Put(t.Context(), digest.FromBytes(other), bytes.NewReader(other)), cache.ErrFull)
	small := put(t, c, random(3, 1000))
	close(g.more)
	require.NoError(t, <-first)
	require.Zero(t, s.held.Load())
	requireBlob(t, c, b)
	require.Empty(t, missing(t, c, small))
	files, err := filepath.Glob(filepath.Join(s.dir, "files", "*", "*"))
	require.NoError(t, err)
	require.Len(t, files, 1, "the refused one left nothing")
}

// TestFailsAlone puts into one commit a chunk that cannot fit and one that can.
func TestFailsAlone(t *testing.T) {
	s := openAt(t, t.TempDir(), Options{MaxBytes: 64 << 20, Retention: time.Hour})
	c := ns(t, s, "")
	for i := range uint64(40) {
		put(t, c, random(10_000+i, 1<<20)) // promised
	}
	hold, held := make(chan struct{}), make(chan struct{})
	go func() { _ = s.onCommitter(func() error { close(held); <-hold; return nil }) }()
	<-held // what is put now gathers for one commit
	var huge []cache.Blob
	for i := range uint64(110) { // less than a commit can hold
		huge = append(huge, blobOf(random(i, smallBlob)))
	}
	refused, stored := make(chan error, 1), make(chan error, 1)
	d := digest.FromBytes(random(5000, 100))
	queued := func(n int) func() bool {
		return func() bool {
			s.queue.mu.Lock()
			defer s.queue.mu.Unlock()
			return len(s.queue.chunks) == n
		}
	}
	go func() { stored <- c.Put(t.Context(), d, bytes.NewReader(random(5000, 100))) }()
	require.Eventually(t, queued(1), 30*time.Second, time.Millisecond)
	go func() { refused <- c.PutVerified(huge) }()
	require.Eventually(t, queued(2), 30*time.Second, time.Millisecond)
	s.queue.mu.Lock()
	s.queue.chunks[0], s.queue.chunks[1] = s.queue.chunks[1], s.queue.chunks[0]
	s.queue.mu.Unlock()
	close(hold)
	require.ErrorIs(t, <-refused, cache.ErrFull)
	require.NoError(t, <-stored)
	require.Empty(t, missing(t, c, d))
}

// TestReadEvicted reads a large blob to its end whose segment and file go away meanwhile.
func TestReadEvicted(t *testing.T) {
	s := openAt(t, t.TempDir(), Options{MaxBytes: 64 << 20})
	c := ns(t, s, "")
	b := random(1, 2<<20)
	d := put(t, c, b)
	rc, err := c.Get(t.Context(), d)
	require.NoError(t, err)
	for i := uint64(100); len(missing(t, c, d)) == 0; i++ {
		require.NoError(t, s.onCommitter(func() error { _, err := s.evictOne(); return err }))
	}
	got, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, got))
	require.NoError(t, rc.Close())
	_, err = c.Get(t.Context(), d)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.Zero(t, s.Stats().Damaged)
}
