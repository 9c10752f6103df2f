package zygote_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// replaces is a dependency that puts its own in place of what is in Python's modules, as locust does when it is imported, by
// gevent, whose event loop is not to be used in a fork before it is told of that.
const replaces = remembers + `
import select, signal, socket, sys
def other(*args, **kw):
    raise RuntimeError("who calls this?")
class Other:
    def __init__(self, *args, **kw):
        other()
for module, names in (os, "fork read waitpid close setpgid"), (select, "poll"), (signal, "signal"), (socket, "socketpair recv_fds send_fds"):
    for name in names.split():
        setattr(module, name, other)
socket.socket = Other
class gevent:
    told = []
    reinit = staticmethod(lambda: gevent.told.append(os.getpid()))
sys.modules["gevent"] = gevent
`

// TestReplaced forks from a zygote in which functions that a fork takes were replaced.
func TestReplaced(t *testing.T) {
	b := newBench(t, replaces)
	b.start("", false, nil)
	for range 2 {
		s := b.start(`import os; print("told", dependency.gevent.told == [os.getpid()], dependency.os.fork is dependency.other)`, false, nil)
		require.True(t, s.warm, "%s", b.log)
		require.Contains(t, s.out.String(), "told True True")
	}
	require.Empty(t, b.log.String())
}
