package disk

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// overwrite changes a file of the store behind its back.
func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	require.NoError(t, os.Remove(path)) // it is read-only
	require.NoError(t, os.WriteFile(path, b, 0o644))
}

func TestCorruptBlobIsSetAside(t *testing.T) {
	for kind, bad := range map[string]string{
		"flipped": "the right contenT", "short": "the right conten", "long": "the right content!", "empty": "",
	} {
		t.Run(kind, func(t *testing.T) {
			s := newStore(t)
			d := put(t, s, "the right content")
			path := name{blobs, d}.path(s)
			overwrite(t, path, []byte(bad))

			_, err := cache.ReadBlob(t.Context(), s, d, 100)
			require.ErrorIs(t, err, digest.ErrMismatch)
			require.NotErrorIs(t, err, cache.ErrNotFound)
			require.ErrorContains(t, err, d.Hash())
			aside := s.path("quarantine", "cas-"+d.Hash()+"-17")
			require.ErrorContains(t, err, aside)
			b, err := os.ReadFile(aside)
			require.NoError(t, err)
			require.Equal(t, bad, string(b))

			_, err = s.Get(t.Context(), d)
			require.ErrorIs(t, err, cache.ErrNotFound, "now it is a miss")
			require.False(t, has(t, s, d))
			put(t, s, "the right content")
			got, err := cache.ReadBlob(t.Context(), s, d, 100)
			require.NoError(t, err)
			require.Equal(t, "the right content", string(got))
		})
	}
}

// TestCorruptBlobIsCounted checks the count where the size is right, as the ledger knows nothing of other damage.
func TestCorruptBlobIsCounted(t *testing.T) {
	s := newStore(t)
	put(t, s, "another")
	d := put(t, s, "right")
	overwrite(t, name{blobs, d}.path(s), []byte("wrong"))
	_, err := cache.ReadBlob(t.Context(), s, d, 100)
	require.ErrorIs(t, err, digest.ErrMismatch)
	requireCounted(t, s)
}

// TestMendedWhileRead checks that a good copy that took a bad one's place while that was read is not set aside.
func TestMendedWhileRead(t *testing.T) {
	s := newStore(t)
	d := put(t, s, "right")
	path := name{blobs, d}.path(s)
	overwrite(t, path, []byte("wrong"))
	rc, err := s.Get(t.Context(), d)
	require.NoError(t, err)
	defer rc.Close()
	require.NoError(t, os.Remove(path))
	put(t, s, "right")

	_, err = io.ReadAll(rc)
	require.ErrorIs(t, err, digest.ErrMismatch)
	require.True(t, has(t, s, d))
	require.Empty(t, regularFiles(t, s.path("quarantine")))
}

func TestDamagedActionResultIsAMiss(t *testing.T) {
	s := newStore(t)
	action := digest.FromBytes([]byte("action"))
	path := name{actions, action}.path(s)
	want := &repb.ActionResult{StdoutRaw: []byte("said")}
	require.NoError(t, s.UpdateActionResult(t.Context(), action, want))
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for _, bad := range [][]byte{flipped, good[:len(good)-1], good[:10], {}, append(bytes.Clone(good), 0)} {
		overwrite(t, path, bad)
		_, err := s.GetActionResult(t.Context(), action)
		require.ErrorIs(t, err, cache.ErrNotFound)
		require.ErrorContains(t, err, "set aside as "+s.path("quarantine", "ac-"))
		require.NoFileExists(t, path)

		require.NoError(t, s.UpdateActionResult(t.Context(), action, want))
		got, err := s.GetActionResult(t.Context(), action)
		require.NoError(t, err)
		require.True(t, proto.Equal(want, got))
	}
	// A whole entry under another Action's name is not believed either.
	other := digest.FromBytes([]byte("other"))
	require.NoError(t, os.MkdirAll(name{actions, other}.dir(s), 0o755))
	require.NoError(t, os.WriteFile(name{actions, other}.path(s), good, 0o644))
	_, err = s.GetActionResult(t.Context(), other)
	require.ErrorIs(t, err, cache.ErrNotFound)
}

func TestVerify(t *testing.T) {
	s := newStore(t)
	good := put(t, s, "good")
	bad, short := put(t, s, "will be bad"), put(t, s, "will be short")
	action := digest.FromBytes([]byte("action"))
	require.NoError(t, s.UpdateActionResult(t.Context(), action, &repb.ActionResult{ExitCode: 3}))
	age(t, s, good, time.Hour)

	v, err := s.Verify(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, v.Blobs)
	require.EqualValues(t, 1, v.Actions)
	require.Empty(t, v.Corrupt)

	overwrite(t, name{blobs, bad}.path(s), []byte("is bad now."))
	overwrite(t, name{blobs, short}.path(s), []byte("short"))
	overwrite(t, name{actions, action}.path(s), []byte("no entry"))
	v, err = s.Verify(t.Context())
	require.NoError(t, err)
	found := map[digest.Digest]bool{}
	for _, c := range v.Corrupt {
		found[c.Digest] = c.Action
		require.Contains(t, c.Problem, "set aside")
	}
	require.Equal(t, map[digest.Digest]bool{bad: false, short: false, action: true}, found)

	v, err = s.Verify(t.Context())
	require.NoError(t, err)
	require.Empty(t, v.Corrupt)
	require.EqualValues(t, 1, v.Blobs)
	fi, err := os.Stat(name{blobs, good}.path(s))
	require.NoError(t, err)
	require.Greater(t, time.Since(fi.ModTime()), renewAfter, "to verify is not to use")

	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, st.Quarantined)
	_, err = s.GC(t.Context(), 1<<30)
	require.NoError(t, err)
	require.Len(t, regularFiles(t, s.path("quarantine")), 3, "GC leaves them for a week")
	require.NoError(t, s.clearQuarantine(time.Now().Add(time.Hour)))
	require.Empty(t, regularFiles(t, s.path("quarantine")))
}

func FuzzDecodeEntry(f *testing.F) {
	action := digest.FromBytes([]byte("action"))
	whole, err := encodeEntry(action, &repb.ActionResult{ExitCode: 1, StdoutRaw: []byte("out")})
	require.NoError(f, err)
	for _, b := range [][]byte{whole, whole[:len(whole)-1], whole[:entryHeader], {}, []byte(entryMagic)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		result, err := decodeEntry(action, b)
		if err != nil {
			require.ErrorIs(t, err, errDamaged)
			require.Nil(t, result)
			return
		}
		// What is believed under one name is refused under every other.
		_, err = decodeEntry(digest.Empty, b)
		require.ErrorIs(t, err, errDamaged)
	})
}

func FuzzParseName(f *testing.F) {
	f.Add(name{blobs, digest.Empty}.file())
	f.Add("../../etc/passwd")
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := parseName(blobs, s); ok {
			require.Equal(t, s, n.file())
		}
	})
}
