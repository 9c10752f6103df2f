package zygote_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/zygote"
)

// TestCopyAhead copies memory ahead until somebody asks: who does not ask has it all, who asks at once waits for none of it.
func TestCopyAhead(t *testing.T) {
	script, err := zygote.Script(t.TempDir())
	require.NoError(t, err)
	source, err := os.ReadFile(script)
	require.NoError(t, err)
	functions, ok := strings.CutSuffix(string(source), "\nmain()\n")
	require.True(t, ok)
	program := functions + `
import ctypes, mmap

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.madvise.argtypes = ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int

def copied(told):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if told:
        ours.send(b"f")
    area = mmap.mmap(-1, 8 << 20)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    copy([(at, 8 << 20)], theirs)
    there = (ctypes.c_ubyte * (8 << 20 >> 12))()
    LIBC.mincore.argtypes = ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p
    assert LIBC.mincore(at, 8 << 20, ctypes.addressof(there)) == 0
    return sum(page & 1 for page in there)

print(copied(False), copied(True))
`
	cmd := exec.Command(pythons(t)[0], "-")
	cmd.Stdin = strings.NewReader(program)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	all, none, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	require.Equal(t, "0", none)
	if all == "0" {
		t.Skip("a kernel before 5.14 copies nothing ahead")
	}
	require.Equal(t, "2048", all)
}
