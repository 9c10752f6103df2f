package disk

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// TestRelease deletes what a pin alone has kept, and neither what another one keeps nor what was never pinned.
func TestRelease(t *testing.T) {
	ctx := t.Context()
	s, err := Open(t.TempDir(), Options{})
	require.NoError(t, err)
	defer s.Close()
	ds := map[string]digest.Digest{}
	for _, name := range []string{"only", "both", "other", "free"} {
		ds[name], err = cache.PutBlob(ctx, s, []byte(name))
		require.NoError(t, err)
	}
	require.NoError(t, s.Pin(ctx, "one", []digest.Digest{ds["only"], ds["both"], digest.FromBytes([]byte("never stored"))}))
	require.NoError(t, s.Pin(ctx, "two", []digest.Digest{ds["both"], ds["other"]}))
	c, err := s.Release(ctx, []string{"one", "unknown"})
	require.NoError(t, err)
	require.EqualValues(t, 1, c.Deleted)
	require.EqualValues(t, 4, c.DeletedBytes)
	missing, err := s.FindMissing(ctx, []digest.Digest{ds["only"], ds["both"], ds["other"], ds["free"]})
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{ds["only"]}, missing)
	pins, err := s.Pins()
	require.NoError(t, err)
	require.Equal(t, []string{"two"}, pins)

	// The count is what a scan finds.
	st, err := s.Stats(ctx)
	require.NoError(t, err)
	require.Equal(t, st.Bytes, c.LeftBytes)
	_, err = s.Release(ctx, []string{"../two"})
	require.Error(t, err)
}
