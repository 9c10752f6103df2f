package pack

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestZeros follows the zeros behind the records of the segment that grows: they are there while it grows, also after a
// crash, and gone when it is sealed or was opened again.
func TestZeros(t *testing.T) {
	fileSize := func(path string) int64 {
		st, err := os.Stat(path)
		require.NoError(t, err)
		return st.Size()
	}
	dir := t.TempDir()
	s := openAt(t, dir, Options{})
	c := ns(t, s, "")
	small := [][]byte{random(1, 300), random(2, 300), random(3, 300)}
	for _, b := range small {
		put(t, c, b)
	}
	path, records := s.segmentPath(s.active.id), s.active.size
	require.Equal(t, int64(len(zeros)), fileSize(path)-int64(len(small[0]))-headerSize, "written behind the first one, overwritten by the others")
	large := random(4, len(zeros)/8+1)
	put(t, c, large)
	require.Equal(t, s.active.size, records+headerSize+int64(len(large)))
	records = s.active.size
	abandon(s)
	require.Greater(t, fileSize(path), records)

	s = openAt(t, dir, Options{})
	require.Equal(t, records, fileSize(path), "cut where the records end")
	c = ns(t, s, "")
	for _, b := range append(small, large) {
		requireBlob(t, c, b)
	}
	put(t, c, random(5, 300))
	path, records = s.segmentPath(s.active.id), s.active.size
	require.NoError(t, s.Close())
	require.Equal(t, records, fileSize(path), "a sealed segment ends where its records do")
}
