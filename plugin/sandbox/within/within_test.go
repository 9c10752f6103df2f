package within

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestArguments takes setups apart again, with whatever a builder's command may hold.
func TestArguments(t *testing.T) {
	for _, s := range []Setup{
		{Program: "/bin/b", Dir: "/tmp/d", ReadOnly: []string{}, Args: []string{"b"}},
		{Program: "/bin/b", Dir: "/tmp/d", ReadOnly: []string{"/usr", "/a b"}, Args: []string{"b", "--", "", "-x", Arg}},
	} {
		got, err := parse(s.Arguments())
		require.NoError(t, err)
		require.Equal(t, s, got)
	}
	for _, args := range [][]string{{Arg}, {Arg, "--"}, {Arg, "/p", "--", "b"}, {Arg, "/p", "/d", "/usr"}} {
		_, err := parse(args)
		require.Error(t, err, "%q", args)
	}
}

func TestPaths(t *testing.T) {
	require.Equal(t, "/a/b", parent("/a/b/c"))
	require.Equal(t, "", parent("/a"))
	require.True(t, under("/usr/bin/b", []string{"/lib", "/usr"}))
	require.True(t, under("/usr", []string{"/usr"}))
	require.True(t, under("/usr", []string{"/"}))
	require.False(t, under("/usrlocal/b", []string{"/usr"}))
	require.False(t, under("/us", []string{"/usr"}))
}

func TestReadable(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	require.False(t, readable(int32(r.Fd())))
	require.NoError(t, w.Close())
	require.True(t, readable(int32(r.Fd())), "its other end is closed")
}

// TestErrors: what the kernel says is found in an error, however much is said about it.
func TestErrors(t *testing.T) {
	err := setMountAttributes(filepath.Join(t.TempDir(), "nothing"), mountAttrRdonly)
	require.True(t, errors.Is(err, syscall.ENOENT) || NotAllowed(err), "%v", err)
	require.Error(t, prctl(prCapbsetDrop, 1<<20))
	require.True(t, NotAllowed(failed("a", failed("b", syscall.EPERM))))
	require.False(t, NotAllowed(failed("a", syscall.ENOENT)))
	require.EqualError(t, failed("a", failed("b", syscall.ENOENT)), "a: b: no such file or directory")
}
