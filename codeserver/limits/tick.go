package limits

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ticker is a process that wakes up for an instant on each processor, every tickEvery, while groups give way.
//
// Who gives way does not always: when all others on a processor that could run have had more than their part, by ever so
// little, the kernel (EEVDF, Linux 6.6) picks the one that gives way, and looks again when somebody wakes up there, or else at its
// own tick, up to 4 ms later (CONFIG_HZ=250). So that a request is not late by that much, somebody wakes up. It costs each processor
// about four percent of its time, nearly all of it that of those who give way. Of the requests beside somebody who computes all the
// time 99 of 100 were answered within 3.2 ms when it was every 2 ms, within 3.0 with 1, and 2.6 with this; without him within 1.95. It
// is a process of its own, since it keeps threads of Go's runtime for itself.
type ticker struct {
	cmd      *exec.Cmd
	lifeline io.Closer
	stopped  atomic.Bool
	done     chan struct{}
}

// tickEvery is how long at most whoever could run waits for who gives way.
const tickEvery = 500 * time.Microsecond

// tickArg is the first argument of this program when it is to be a ticker.
const tickArg = "pexpress-ticker"

// Main is the ticker if this process was started to be it, and does not return then. The program of whoever uses Balance must
// call it first thing.
func Main() {
	if len(os.Args) != 2 || os.Args[1] != tickArg {
		return
	}
	if err := tickAll(); err != nil {
		fmt.Fprintln(os.Stderr, "codeserver ticker:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// startTicker returns nil where the kernel ticks often enough by itself, or there can be no ticker: requests may wait then.
func startTicker(log *slog.Logger) *ticker {
	if kernelTick() <= tickEvery {
		return nil
	}
	t := &ticker{done: make(chan struct{})}
	if err := t.start(log); err != nil {
		log.Warn(noTicker, "error", err)
		return nil
	}
	return t
}

const noTicker = "requests may wait for versions that give way"

func (t *ticker) start(log *slog.Logger) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	t.cmd = exec.Command(self, tickArg)
	t.cmd.Stderr = &said
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}       // no key that ends the codeserver ends it
	t.cmd.Env = []string{"GOGC=off", "GODEBUG=asyncpreemptoff=1"} // its threads are not interrupted
	if t.lifeline, err = t.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := t.cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(t.done)
		if err := t.cmd.Wait(); !t.stopped.Load() {
			log.Warn(noTicker, "error", err, "ticker", strings.TrimSpace(said.String()))
		}
	}()
	return nil
}

// kernelTick is the time between two of the kernel's own ticks; see clock_getres(2).
func kernelTick() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &t) // there is this clock since Linux 2.6.32
	return time.Duration(t.Nano())
}

// stop ends the ticker. nil is one that does not tick.
func (t *ticker) stop() {
	if t == nil {
		return
	}
	t.stopped.Store(true)
	_ = t.cmd.Process.Kill() // somebody can have stopped it
	<-t.done
}

// maxProcessors is the most that Linux can be made for.
const maxProcessors = 8192

// tickAll ticks on each processor that this process may use, until the other end of its standard input is closed.
func tickAll() error {
	all := unix.NewCPUSet(maxProcessors)
	if err := unix.SchedGetaffinityDynamic(0, all); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	// Each processor's thread keeps one of Go's processors. One more is for what else the runtime does.
	runtime.GOMAXPROCS(all.Count() + 1)
	ended := make(chan error)
	for processor := range maxProcessors {
		if all.IsSet(processor) {
			go func() { ended <- tick(processor) }()
		}
	}
	return <-ended
}

// tick ticks on one processor. It calls nothing that Go's runtime has a part in.
func tick(processor int) error {
	runtime.LockOSThread()
	only := unix.NewCPUSet(processor + 1)
	only.Set(processor)
	if err := unix.SchedSetaffinityDynamic(0, only); err != nil {
		return os.NewSyscallError("sched_setaffinity", err)
	}
	lifeline := unix.PollFd{Fd: 0, Events: unix.POLLIN}
	for {
		wait := unix.NsecToTimespec(tickEvery.Nanoseconds()) // the kernel writes what is left of it
		n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&lifeline)), 1, uintptr(unsafe.Pointer(&wait)), 0, 0, 0)
		switch {
		case errno != 0 && errno != unix.EINTR:
			return os.NewSyscallError("ppoll", errno)
		case errno == 0 && n > 0:
			return nil
		}
	}
}
