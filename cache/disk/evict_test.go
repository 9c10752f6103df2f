package disk

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// kilobyte puts a blob of 1000 bytes that was last used some time ago.
func kilobyte(t *testing.T, s *Store, i int, ago time.Duration) digest.Digest {
	t.Helper()
	d := put(t, s, fmt.Sprintf("%01000d", i))
	age(t, s, d, ago)
	return d
}

func TestEvictsWhatWasUsedLongestAgo(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{MaxBytes: 10_500})
	var ds []digest.Digest
	for i := range 10 {
		ds = append(ds, kilobyte(t, s, i, time.Duration(10-i)*time.Hour))
	}
	// A read, a search and a Put of what is there are uses; the eleventh blob then exceeds the limit.
	_, err := cache.ReadBlob(t.Context(), s, ds[0], 1000)
	require.NoError(t, err)
	require.True(t, has(t, s, ds[1]))
	put(t, s, fmt.Sprintf("%01000d", 2))
	last := put(t, s, fmt.Sprintf("%01000d", 10))

	for i, d := range ds {
		require.Equal(t, i != 3 && i != 4, has(t, s, d), "blob %d", i)
	}
	require.True(t, has(t, s, last))
	requireCounted(t, s)
}

func TestRecentUsesWriteNothing(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "read often")
	for ago, renewed := range map[time.Duration]bool{
		renewAfter / 2: false, renewAfter + time.Minute: true, -renewAfter - time.Minute: true,
	} {
		age(t, s, d, ago)
		path := name{blobs, d}.path(s)
		before, err := os.Stat(path)
		require.NoError(t, err)
		require.True(t, has(t, s, d))
		after, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, renewed, !after.ModTime().Equal(before.ModTime()), "last used %s ago", ago)
	}
}

func TestPinnedStay(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{MaxBytes: 5_000})
	future := fmt.Sprintf("%01000d", 100)
	pinned := []digest.Digest{digest.FromBytes([]byte(future))}
	for i := range 4 {
		pinned = append(pinned, kilobyte(t, s, i, 100*time.Hour))
	}
	require.NoError(t, s.Pin(t.Context(), "deployed", append(pinned, pinned[1])))
	age(t, s, put(t, s, future), 100*time.Hour)
	for i := range 20 {
		kilobyte(t, s, 200+i, time.Hour)
	}
	missing, err := s.FindMissing(t.Context(), pinned)
	require.NoError(t, err)
	require.Empty(t, missing)
	requireCounted(t, s)
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 5_000, st.PinnedBytes)

	c, err := s.GC(t.Context(), 0)
	require.NoError(t, err)
	require.EqualValues(t, 5_000, c.LeftBytes)

	require.NoError(t, s.Pin(t.Context(), "deployed", pinned[:2]))
	_, err = s.GC(t.Context(), 0)
	require.NoError(t, err)
	missing, err = s.FindMissing(t.Context(), pinned)
	require.NoError(t, err)
	require.Equal(t, pinned[2:], missing)

	require.NoError(t, s.Unpin(t.Context(), "deployed"))
	require.NoError(t, s.Unpin(t.Context(), "deployed"))
	c, err = s.GC(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, Collected{Deleted: 2, DeletedBytes: 2_000}, c)
}

// TestFutileEviction checks that a store full of pinned blobs is not looked through at each further Put.
func TestFutileEviction(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{MaxBytes: 10_000})
	var pinned []digest.Digest
	for i := range 10 {
		pinned = append(pinned, kilobyte(t, s, i, time.Hour))
	}
	require.NoError(t, s.Pin(t.Context(), "all", pinned))
	put(t, s, "one too many")
	next := func() (n int64) {
		require.NoError(t, s.withLedger(t.Context(), func(l *ledger) error {
			n = l.NextEviction
			return nil
		}))
		return n
	}
	require.EqualValues(t, 11_012, next())
	require.NoError(t, s.Unpin(t.Context(), "all"))
	require.Zero(t, next())
	put(t, s, "and another one")
	requireCounted(t, s)
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, st.Bytes, int64(9_000))
}

func TestPinNames(t *testing.T) {
	s := newStore(t)
	for _, bad := range []string{"", ".", "..", ".hidden", "a/b", "../x", "a\x00b", strings.Repeat("x", 201)} {
		require.ErrorContains(t, s.Pin(t.Context(), bad, nil), "pin name")
		require.ErrorContains(t, s.Unpin(t.Context(), bad), "pin name")
	}
	require.ErrorIs(t, s.Pin(t.Context(), "zero", []digest.Digest{{}}), digest.ErrInvalid)
	require.Empty(t, regularFiles(t, s.path("pins")))
}

func TestDamagedPinStopsEviction(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "pinned")
	require.NoError(t, s.Pin(t.Context(), "deployed", []digest.Digest{d}))
	require.NoError(t, os.WriteFile(s.path("pins", "deployed"), []byte(d.String()[:20]), 0o644))
	_, err := s.GC(t.Context(), 0)
	require.ErrorContains(t, err, "pins/deployed is damaged, unpin it or pin it again")
	require.True(t, has(t, s, d))
}

func TestLargerThanTheLimit(t *testing.T) {
	s := openStore(t, t.TempDir(), Options{MaxBytes: 100})
	kept := put(t, s, "kept")
	b := make([]byte, 101)
	d := digest.FromBytes(b)
	err := s.Put(t.Context(), d, bytes.NewReader(b))
	require.ErrorIs(t, err, cache.ErrFull)
	require.ErrorContains(t, err, "raise the limit")
	require.ErrorIs(t, s.PutMany(t.Context(), []cache.Blob{{Digest: d, Data: b}}), cache.ErrFull)
	result := &repb.ActionResult{StdoutRaw: b}
	require.ErrorIs(t, s.UpdateActionResult(t.Context(), d, result), cache.ErrFull)
	require.True(t, has(t, s, kept))
}

func TestGCEvictsActionResults(t *testing.T) {
	s := newStore(t)
	action := put(t, s, "an action")
	require.NoError(t, s.UpdateActionResult(t.Context(), action, &repb.ActionResult{ExitCode: 1}))
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, st.Blobs)
	require.EqualValues(t, 1, st.Actions)
	_, err = s.GC(t.Context(), 0)
	require.NoError(t, err)
	_, err = s.GetActionResult(t.Context(), action)
	require.ErrorIs(t, err, cache.ErrNotFound)
	requireCounted(t, s)
}

// TestUncleanLedger checks that the count is made anew after a process was killed in the middle of a change, after a
// crash of the machine, and when the record is garbage.
func TestUncleanLedger(t *testing.T) {
	s := newStore(t)
	for _, spoil := range []func(l *ledger){
		func(l *ledger) { l.Bytes = 1; require.NoError(t, l.save(false)) },
		func(l *ledger) { l.Bytes = 2; l.store.boot = "an earlier one"; require.NoError(t, l.save(true)) },
		func(l *ledger) { _, err := l.file.WriteAt([]byte("garbage"), 0); require.NoError(t, err) },
		func(l *ledger) { require.NoError(t, l.file.Truncate(10)) },
		func(l *ledger) { require.NoError(t, os.Remove(l.file.Name())) },
	} {
		put(t, s, "something")
		other := &Store{dir: s.dir, boot: s.boot}
		f, err := os.OpenFile(s.path("ledger"), os.O_RDWR, 0)
		require.NoError(t, err)
		spoil(&ledger{store: other, file: f})
		require.NoError(t, f.Close())
		requireCounted(t, s)
	}
}
