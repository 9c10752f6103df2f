package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/sandbox"
)

// A version that is forked from a process without privileges, and then shut into a sandbox, cannot have a shim for a
// parent, which has them all. Its parent is the keeper, another fork of that process, which only waits, and tells the shim
// how the version has ended. The shim ends it like any other; when the shim has ended so does the keeper, and with it what
// is left of the version.

// keeperFD is the connection of a shim to its version's keeper, pidfdFD the version itself.
const (
	keeperFD = statusFD + 1
	pidfdFD  = keeperFD + 1
)

// sandboxed is a version that runs already when its shim is started.
type sandboxed struct {
	PID, Keeper int
}

// forkInto has a process fork a version into a sandbox, and starts the version's shim.
func (s *shim) forkInto(spec Spec, self string, lifeline, status, out *os.File) error {
	admission, asking, err := sandbox.Connection()
	if err != nil {
		return err
	}
	defer admission.Close()
	link, kept, err := pair()
	if err != nil {
		return errors.Join(err, asking.Close())
	}
	shims, err := link.File()
	if err = errors.Join(err, link.Close()); err != nil {
		return errors.Join(err, asking.Close(), kept.Close())
	}
	defer shims.Close() // an error ends the keeper by it
	c := confinement(spec)
	var parent sandbox.Parent
	if spec.Group != nil {
		if err := spec.Group.Allow(1); err != nil { // for the keeper
			return errors.Join(err, asking.Close(), kept.Close())
		}
	}
	err = spec.Fork(ForkRequest{
		Args: spec.Args, Env: spec.Env, Dir: spec.Dir, Confine: c, Admission: asking, Keeper: kept, Out: out, Parent: &parent,
	})
	if err = errors.Join(err, asking.Close(), kept.Close()); err != nil {
		return err
	}
	f, err := sandbox.Admit(admission, spec.Sandbox, parent, c.confine)
	if err != nil {
		return err
	}
	defer f.File.Close()
	input, err := json.Marshal(shimSpec{Grace: spec.Grace, Forked: &sandboxed{f.PID, f.Keeper}})
	if err == nil {
		err = s.run(self, input, c, lifeline, status, shims, f.File, out)
	}
	if err != nil {
		return errors.Join(err, f.Kill())
	}
	s.version = f.PID
	return nil
}

// confine puts a process that waits for it, and its keeper, which has the same code in its memory, into their cgroup.
func (c Confinement) confine(f *sandbox.Forked) error {
	for _, group := range c.Groups {
		for _, pid := range []int{f.Keeper, f.PID} {
			if err := os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// keeperPatience is how long a keeper has to say how its version ended, when it has: a thing of milliseconds.
const keeperPatience = 5 * time.Second

// watchForked sends on ended how a version ended of which this process is not the parent.
func watchForked(ended chan<- syscall.WaitStatus) error {
	conn, err := connection(os.NewFile(keeperFD, "keeper"))
	if err != nil {
		return fmt.Errorf("the keeper: %w", err)
	}
	go func() {
		said := make(chan syscall.WaitStatus, 1)
		go func() { said <- told(conn) }()
		// The keeper's word, or its end, is not the version's.
		poll := []unix.PollFd{{Fd: pidfdFD, Events: unix.POLLIN}}
		for {
			if n, err := unix.Poll(poll, -1); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		select {
		case st := <-said:
			ended <- st
		case <-time.After(keeperPatience): // it was stopped, perhaps
			ended <- syscall.WaitStatus(syscall.SIGKILL)
		}
	}()
	return nil
}

// told returns what the keeper says of the version's end.
func told(conn *net.UnixConn) syscall.WaitStatus {
	var n struct{ Status *syscall.WaitStatus }
	file, err := receive(conn, &n)
	if file != nil {
		file.Close()
	}
	if err != nil || n.Status == nil {
		return syscall.WaitStatus(syscall.SIGKILL) // as the kernel does to the version when the keeper ends
	}
	return *n.Status
}
