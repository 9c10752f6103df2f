package pack

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// TestTornTail cuts and flips the end of a segment that was not sealed: what was acknowledged before is there, the rest is
// a miss, and the store goes on.
func TestTornTail(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, path string, end int64){
		"cut": func(t *testing.T, path string, end int64) {
			require.NoError(t, os.Truncate(path, end-10))
		},
		"garbage": func(t *testing.T, path string, end int64) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt(random(9, 5000), end)
			require.NoError(t, errors.Join(err, f.Close()))
		},
		"flipped": func(t *testing.T, path string, end int64) {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			b[end-1] ^= 1
			require.NoError(t, os.WriteFile(path, b, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openAt(t, dir, Options{})
			c := ns(t, s, "")
			first, last := random(1, 5000), random(2, 5000)
			put(t, c, first)
			put(t, c, last)
			path, end := s.segmentPath(s.active.id), s.active.size
			abandon(s)
			harm(t, path, end)
			c = ns(t, openAt(t, dir, Options{}), "")
			requireBlob(t, c, first)
			if name != "garbage" {
				require.Len(t, missing(t, c, digest.FromBytes(last)), 1)
			}
			put(t, c, last)
			requireBlob(t, c, last)
		})
	}
}

// TestDamaged flips a bit in what is stored: it is an error that names the digest, then a miss, and can be put again.
func TestDamaged(t *testing.T) {
	for _, size := range []int{1000, 2 << 20} {
		for _, clean := range []bool{true, false} {
			t.Run(fmt.Sprint(size, clean), func(t *testing.T) {
				dir := t.TempDir()
				s := openAt(t, dir, Options{})
				c := ns(t, s, "")
				b := random(1, size)
				d := put(t, c, b)
				path := s.segmentPath(s.active.id)
				if size > smallBlob {
					r := refOf(d, 0, 0)
					path = s.filePath(s.table.find(&r).loc)
				}
				f, err := os.OpenFile(path, os.O_RDWR, 0)
				require.NoError(t, err)
				_, err = f.WriteAt([]byte{b[500] ^ 1}, int64(500+map[bool]int{true: headerSize}[size <= smallBlob]))
				require.NoError(t, errors.Join(err, f.Close()))
				if clean {
					rep, err := s.Verify(t.Context())
					require.NoError(t, err)
					require.Len(t, rep.Damaged, 1)
					require.Contains(t, rep.Damaged[0], d.Hash())
				} else {
					_, err = cache.ReadBlob(t.Context(), c, d, int64(size))
					require.ErrorIs(t, err, digest.ErrMismatch)
					require.ErrorContains(t, err, d.Hash())
				}
				require.Equal(t, []digest.Digest{d}, missing(t, c, d))
				require.NoError(t, s.Close())
				s = openAt(t, dir, Options{})
				c = ns(t, s, "")
				require.Equal(t, []digest.Digest{d}, missing(t, c, d), "also after a restart")
				put(t, c, b)
				requireBlob(t, c, b)
				rep, err := s.Verify(t.Context())
				require.NoError(t, err)
				require.Empty(t, rep.Damaged)
				require.Equal(t, 1, rep.Checked)
			})
		}
	}
}
