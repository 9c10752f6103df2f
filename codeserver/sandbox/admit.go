package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// Parent is the process that forks others that ask to be admitted. It has no privilege, and runs code that is trusted with
// nothing but what those others are.
type Parent struct {
	PID, User int
}

// Forked is a process that was admitted.
type Forked struct {
	PID int
	// Keeper is its parent, a fork of the Parent as well, which tells how it ends.
	Keeper int
	// File is a pidfd of the process.
	File *os.File
}

// admission is what a process is told that is admitted; the mounts' files come with it, in the order of At.
type admission struct {
	User int      `json:"user"`
	At   []string `json:"at"`
}

// admitTimeout is how long a fork has to ask, a thing of milliseconds.
const admitTimeout = 10 * time.Second

// Connection returns the two ends of a connection on which one process asks to be admitted.
func Connection() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "admission")
	f := os.NewFile(uintptr(fds[0]), "admission")
	err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
	c, cerr := net.FileConn(f)
	if err = errors.Join(err, cerr, f.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return c.(*net.UnixConn), theirs, nil
}

// Admit waits for the one who asks, and shuts it into its sandbox: when it returns, the process is free to go on as the
// spec's user. Before that, confine is called. The connection is left to the caller to close.
//
// The process that asks must be a fork of the parent's. What is granted is the spec's user and mounts, to that process
// alone; a parent that has another one ask, or is in the wrong in any way, can only have that one get it.
func Admit(conn *net.UnixConn, s *Spec, parent Parent, confine func(*Forked) error) (*Forked, error) {
	mounts, err := makeAll(s)
	if err != nil {
		return nil, err
	}
	defer closeAll(mounts)
	if err := conn.SetDeadline(time.Now().Add(admitTimeout)); err != nil {
		return nil, err
	}
	pid, err := asks(conn, parent.User)
	if err != nil {
		return nil, err
	}
	f, err := identify(pid, parent)
	if err != nil {
		return nil, fmt.Errorf("process %d is not admitted: %w", pid, err)
	}
	if err = confine(f); err == nil {
		err = f.mapUser(s.User)
	}
	if err == nil {
		err = answer(conn, s.User, mounts)
	}
	if err != nil {
		return nil, errors.Join(err, f.Kill(), f.File.Close())
	}
	return f, nil
}

// Kill ends the process.
func (f *Forked) Kill() error { return unix.PidfdSendSignal(int(f.File.Fd()), unix.SIGKILL, nil, 0) }

// asks returns the pid of the process that asks, as the kernel says it.
func asks(conn *net.UnixConn, user int) (int, error) {
	word, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, _, _, err := conn.ReadMsgUnix(word, oob)
	if err != nil {
		return 0, fmt.Errorf("a forked process does not ask to be admitted: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, err
	}
	if n == 0 || len(messages) != 1 {
		return 0, errors.New("a forked process has ended before it was admitted")
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return 0, err
	}
	if int(cred.Uid) != user {
		return 0, fmt.Errorf("user %d asks to be admitted, not %d", cred.Uid, user)
	}
	if why := string(word[:n]); why != "ready" {
		return 0, errors.New(strings.ToValidUTF8(why, "?"))
	}
	return int(cred.Pid), nil
}

// identify makes sure that a pid is that of a grandchild of the parent's, and stays so.
func identify(pid int, parent Parent) (*Forked, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	f := &Forked{PID: pid, File: os.NewFile(uintptr(fd), "pidfd")}
	user, keeper, err := status(pid)
	if err == nil && user != parent.User {
		err = fmt.Errorf("it is user %d's", user)
	}
	if err == nil {
		f.Keeper = keeper
		var above int
		user, above, err = status(keeper)
		if err == nil && (user != parent.User || above != parent.PID) {
			err = fmt.Errorf("its parent %d is not a fork of process %d", keeper, parent.PID)
		}
	}
	if err == nil {
		// Only now is it sure that all that was the process, and not one that came to have its number.
		err = os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(fd, 0, nil, 0))
	}
	if err != nil {
		return nil, errors.Join(err, f.File.Close())
	}
	return f, nil
}

// status returns the user and the parent of a process.
func status(pid int) (user, parent int, err error) {
	s, err := proc.Status(pid)
	if err != nil {
		return 0, 0, err
	}
	var effective int
	if _, err := fmt.Sscan(s["Uid"], &user, &effective); err != nil {
		return 0, 0, fmt.Errorf("its users %q: %w", s["Uid"], err)
	}
	if effective != user {
		return 0, 0, errors.New("it has two users")
	}
	parent, err = strconv.Atoi(s["PPid"])
	return user, parent, err
}

// mapUser lets the process become one user, and have one group, in the user namespace that it has made.
func (f *Forked) mapUser(user int) error {
	only := []byte(fmt.Sprintf("%d %d 1\n", user, user))
	for _, file := range []string{"gid_map", "uid_map"} {
		m, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", f.PID, file), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = m.Write(only)
		if err = errors.Join(err, m.Close()); err != nil {
			return err
		}
	}
	return nil
}

func answer(conn *net.UnixConn, user int, mounts []made) error {
	a := admission{User: user}
	var fds []int
	for _, m := range mounts {
		a.At = append(a.At, m.at)
		fds = append(fds, int(m.file.Fd()))
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if _, _, err := conn.WriteMsgUnix(b, unix.UnixRights(fds...), nil); err != nil {
		return fmt.Errorf("a forked process has ended while it was admitted: %w", err)
	}
	return nil
}
