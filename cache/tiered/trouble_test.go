package tiered

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/pack"
)

// picky is a back that refuses one blob until it is told not to.
type picky struct {
	*far
	mu  sync.Mutex
	bad digest.Digest
}

func (p *picky) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d == p.bad {
		return cache.ErrFull
	}
	return p.far.Put(ctx, d, r)
}

func (p *picky) PutMany(ctx context.Context, blobs []cache.Blob) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range blobs {
		if b.Digest == p.bad {
			return cache.ErrFull
		}
	}
	return cache.PutAll(ctx, p.far, blobs)
}

// warnings gathers what is warned of.
type warnings struct {
	mu  sync.Mutex
	all []error
}

func (w *warnings) add(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, err)
}

func (w *warnings) joined() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.all...)
}

func journalBefore(t *testing.T, dir string, back Back, warn func(error)) (*WriteBack, *Delayed) {
	both := tiers(t, forgetful{}, back, warn)
	w, err := OpenWriteBack(dir, 64<<20, func(string) (*Cache, error) { return both, nil }, warn)
	require.NoError(t, err)
	t.Cleanup(func() { w.Close() })
	c, err := w.Namespace("")
	require.NoError(t, err)
	return w, c
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 30*time.Second, time.Millisecond)
}

func named(d digest.Digest) *repb.ActionResult {
	return &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "x", Digest: d.Proto()}}}
}

// TestRefused has the bucket refuse a blob for good: it stays, and holds up nothing but the result that names it.
func TestRefused(t *testing.T) {
	for _, size := range []int{1000, 3 << 20} {
		bad, good := random(1, size), random(2, size)
		back := &picky{far: newFar(), bad: digest.FromBytes(bad)}
		var told warnings
		w, c := journalBefore(t, t.TempDir(), back, told.add)
		put(t, c, bad)
		put(t, c, good)
		action, other := digest.FromBytes([]byte("action")), digest.FromBytes([]byte("other"))
		require.NoError(t, c.UpdateActionResult(t.Context(), action, named(digest.FromBytes(bad))))
		require.NoError(t, c.UpdateActionResult(t.Context(), other, named(digest.FromBytes(good))))
		eventually(t, func() bool { return w.Pending() == 2 && w.Trouble().Refused == 2 })
		_, err := back.GetAction(t.Context(), other)
		require.NoError(t, err)
		_, err = back.GetAction(t.Context(), action)
		require.ErrorIs(t, err, cache.ErrNotFound, "its blob is not there")
		require.ErrorContains(t, told.joined(), digest.FromBytes(bad).Hash())
		got, err := cache.ReadBlob(t.Context(), c, digest.FromBytes(bad), int64(size))
		require.NoError(t, err)
		require.Len(t, got, size)

		back.mu.Lock()
		back.bad = digest.Digest{}
		back.mu.Unlock()
		w.retry()
		eventually(t, func() bool { return w.Pending() == 0 && w.Trouble().Refused == 0 })
		_, err = back.GetAction(t.Context(), action)
		require.NoError(t, err)
	}
}

// flip damages the payload of the journal's only record of those bytes.
func flip(t *testing.T, dir string, b []byte) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "segments", "????????"))
	require.NoError(t, err)
	for _, path := range paths {
		all, err := os.ReadFile(path)
		require.NoError(t, err)
		if i := indexOf(all, b); i >= 0 {
			all[i] ^= 1
			require.NoError(t, os.WriteFile(path, all, 0o600))
			return
		}
	}
	t.Fatal("the journal does not have it")
}

func indexOf(all, b []byte) int {
	for i := range len(all) - len(b) + 1 {
		if string(all[i:i+len(b)]) == string(b) {
			return i
		}
	}
	return -1
}

// TestLost damages what the journal holds, before a reader or the bucket comes for it: it is told, and the rest arrives.
func TestLost(t *testing.T) {
	for name, read := range map[string]bool{"found by the bringer": false, "found by a reader": true} {
		t.Run(name, func(t *testing.T) {
			back := newFar()
			back.down.Store(true)
			dir := t.TempDir()
			var told warnings
			w, c := journalBefore(t, dir, back, told.add)
			bad := random(1, 1000)
			d := put(t, c, bad)
			good := put(t, c, random(2, 1000))
			action := digest.FromBytes([]byte("action"))
			require.NoError(t, c.UpdateActionResult(t.Context(), action, named(d)))
			flip(t, dir, bad)
			if read {
				_, err := cache.ReadBlob(t.Context(), c, d, 1000)
				require.ErrorIs(t, err, digest.ErrMismatch)
			}
			back.down.Store(false)
			eventually(t, func() bool { return w.Trouble() == Trouble{Refused: 1, Lost: 1} })
			require.ErrorContains(t, told.joined(), d.Hash())
			missing, err := back.FindMissing(t.Context(), []digest.Digest{d, good})
			require.NoError(t, err)
			require.Equal(t, []digest.Digest{d}, missing)
			_, err = back.GetAction(t.Context(), action)
			require.ErrorIs(t, err, cache.ErrNotFound)
			_, err = c.Get(t.Context(), d)
			require.ErrorIs(t, err, cache.ErrNotFound)
			require.ErrorContains(t, err, "was acknowledged")

			put(t, c, bad) // stored again: all is well
			eventually(t, func() bool { return w.Pending() == 1 })
			w.retry()
			eventually(t, func() bool { return w.Pending() == 0 })
			_, err = back.GetAction(t.Context(), action)
			require.NoError(t, err)
		})
	}
}

// TestTornJournal opens a journal that a crash ended at any byte of its last record: what was written before is brought,
// and the last one is there whole or not at all.
func TestTornJournal(t *testing.T) {
	dir := t.TempDir()
	journal, err := pack.Open(dir, pack.Options{MaxBytes: 64 << 20})
	require.NoError(t, err)
	c, err := journal.Namespace("")
	require.NoError(t, err)
	first, last := put(t, c, random(1, 100)), put(t, c, random(2, 30))
	require.NoError(t, journal.Close())
	segment := filepath.Join(dir, "segments", "00000001")
	whole, err := os.ReadFile(segment)
	require.NoError(t, err)
	names, err := os.ReadFile(filepath.Join(dir, "namespaces.json"))
	require.NoError(t, err)
	for cut := 64 + 30; cut >= 0; cut-- {
		again := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(again, "segments"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(again, "namespaces.json"), names, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(again, "segments", "00000001"), whole[:len(whole)-cut], 0o600))
		back := newFar()
		w, _ := journalBefore(t, again, back, quiet(t))
		eventually(t, func() bool { return w.Pending() == 0 })
		require.NoError(t, w.Close())
		missing, err := back.FindMissing(t.Context(), []digest.Digest{first, last})
		require.NoError(t, err)
		if cut == 0 {
			require.Empty(t, missing)
		} else {
			require.Equal(t, []digest.Digest{last}, missing, "cut by %d", cut)
		}
	}
}
