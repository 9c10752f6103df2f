package disk

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
)

// TestName: a path is the directory's and the file's name, and the file's name says what it is of.
func TestName(t *testing.T) {
	s := &Store{dir: "/x/y"}
	for _, fn := range digest.Functions {
		for _, a := range areas {
			n := name{a, fn.FromBytes([]byte("abc"))}
			require.Equal(t, n.dir(s)+"/"+n.file(), n.path(s))
			parsed, ok := parseName(a, filepath.Base(n.path(s)))
			require.True(t, ok)
			require.Equal(t, n, parsed)
		}
	}
	sum := digest.FromBytes([]byte("abc"))
	require.Equal(t, "/x/y/cas/ba/"+sum.Hash()+"-3", name{blobs, sum}.path(s))
}
