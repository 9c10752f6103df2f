// Package sockets keeps listening sockets open from one process of a server to the next: whoever connects in between
// waits, and is not refused.
//
// A socket comes from systemd, which has opened it itself (socket activation) or has been given it by the process before
// (FDSTORE of sd_notify(3)), or from that process directly, which has executed the next one in its own place. Which
// socket it is shows in its address.
package sockets

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Set is the sockets of a process, by name. A nil one has none, and keeps none.
type Set struct {
	mu        sync.Mutex
	inherited []*os.File
	kept      map[string]*os.File // copies: they are open when the server has closed its own
}

// Inherit returns the sockets that this process was given. It is called once, before the process starts another.
func Inherit() *Set { return &Set{inherited: append(activation.Files(true), passed()...)} }

// Next returns the set that the next server has if it runs in this process.
func (s *Set) Next() *Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &Set{inherited: slices.Collect(maps.Values(s.kept))}
	s.kept = nil
	return next
}

// Take returns the socket of that address that this process was given, and the name that it was kept under, or has in
// systemd's configuration; nil if there is none. Addresses are as net.Listen takes them. A unix socket that was kept under
// the name is the one that is meant, too, if there is one at the address: the kernel knows it by its first path, which may
// have been another.
func (s *Set) Take(name, network, address string) (net.Listener, string, error) {
	if s == nil {
		return nil, "", nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.inherited {
		l, err := match(f, name, network, address)
		if l == nil && err == nil {
			continue
		}
		s.inherited = slices.Delete(s.inherited, i, i+1)
		return l, f.Name(), errors.Join(err, f.Close())
	}
	return nil, "", nil
}

// match returns a listener for a socket if that has the address.
func match(f *os.File, name, network, address string) (net.Listener, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var sa unix.Sockaddr
	var listening int
	cerr := raw.Control(func(fd uintptr) {
		sa, err = unix.Getsockname(int(fd))
		if err == nil {
			listening, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		}
	})
	if err != nil || cerr != nil || listening == 0 {
		return nil, cerr // something else than a socket, that nobody asks for
	}
	if !sameAddress(sa, network, address) && !(f.Name() == name && isUnix(sa) && network == "unix" && isSocket(address)) {
		return nil, nil
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over %s: %w", address, err)
	}
	return l, nil
}

func isUnix(sa unix.Sockaddr) bool {
	_, ok := sa.(*unix.SockaddrUnix)
	return ok
}

func isSocket(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&os.ModeSocket != 0
}

func sameAddress(sa unix.Sockaddr, network, address string) bool {
	if sa, ok := sa.(*unix.SockaddrUnix); ok {
		return network == "unix" && sa.Name == address
	}
	want, err := net.ResolveTCPAddr("tcp", address)
	if err != nil || network != "tcp" {
		return false
	}
	var ip net.IP
	port := 0
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		ip, port = sa.Addr[:], sa.Port
	case *unix.SockaddrInet6:
		ip, port = sa.Addr[:], sa.Port
	}
	every := func(ip net.IP) bool { return len(ip) == 0 || ip.IsUnspecified() }
	return port != 0 && port == want.Port && (ip.Equal(want.IP) || every(ip) && every(want.IP))
}

// filer is a listener that is one of the kernel's.
type filer interface{ File() (*os.File, error) }

// Keep keeps a socket open under a name when its listener is closed, until Drop, in place of what had the name before.
// Without an error systemd, if it is there and was told to, keeps it beyond this process, too.
func (s *Set) Keep(name string, l net.Listener) error { return s.keep(name, l, true) }

// Pass keeps a socket for Exec alone: systemd has it by itself.
func (s *Set) Pass(name string, l net.Listener) error { return s.keep(name, l, false) }

func (s *Set) keep(name string, l net.Listener, stored bool) error {
	if s == nil {
		return nil
	}
	f, ok := l.(filer)
	if !ok {
		return fmt.Errorf("%s is no socket of the kernel's", l.Addr())
	}
	file, err := f.File()
	if err != nil {
		return fmt.Errorf("keep %s: %w", l.Addr(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.kept[name]; old != nil {
		err = errors.Join(store("FDSTOREREMOVE=1\nFDNAME="+name, nil), old.Close())
	}
	if s.kept == nil {
		s.kept = map[string]*os.File{}
	}
	s.kept[name] = file
	if stored {
		err = errors.Join(err, store("FDSTORE=1\nFDNAME="+name, file))
	}
	return err
}

// Drop closes what is kept under a name.
func (s *Set) Drop(name string) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.kept[name]
	if f == nil {
		return nil
	}
	delete(s.kept, name)
	return errors.Join(store("FDSTOREREMOVE=1\nFDNAME="+name, nil), f.Close())
}

// CloseRest closes the sockets that this process was given and has not taken.
func (s *Set) CloseRest(log *slog.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.inherited {
		log.Warn("a socket that was passed to this process is of no use", "name", f.Name())
		var err error
		if s.kept[f.Name()] == nil {
			err = store("FDSTOREREMOVE=1\nFDNAME="+f.Name(), nil)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			log.Warn("close a socket", "name", f.Name(), "error", err)
		}
	}
	s.inherited = nil
}

// store tells systemd, if it is there, to keep a descriptor or to forget one.
func store(state string, file *os.File) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(socket)
	to := &unix.SockaddrUnix{Name: name}
	if file == nil {
		return os.NewSyscallError("notify systemd", unix.Sendmsg(socket, []byte(state), nil, to, 0))
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	// Fd would make the file a blocking one, for all that share it.
	cerr := raw.Control(func(fd uintptr) { err = unix.Sendmsg(socket, []byte(state), unix.UnixRights(int(fd)), to, 0) })
	return errors.Join(os.NewSyscallError("notify systemd", err), cerr)
}

// Exec executes a program in place of this process, and passes it all that is kept. It returns only with an error.
func (s *Set) Exec(program string, args []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// No process may be started meanwhile that these descriptors would be passed to.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	passed := []string{strconv.Itoa(os.Getpid())}
	for name, f := range s.kept {
		fd := f.Fd()
		if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		defer unix.CloseOnExec(int(fd))
		passed = append(passed, strconv.Itoa(int(fd)), name)
	}
	env := append(os.Environ(), passedVariable+"="+strings.Join(passed, " "))
	return &os.PathError{Op: "exec", Path: program, Err: syscall.Exec(program, args, env)}
}

// passedVariable has the process before, which is this one, and the descriptors that it has passed, each with its name.
// They are not moved to where sd_listen_fds(3) has them begin: something of the process's may be there, which still runs.
const passedVariable = "PEXPRESS_PASSED_SOCKETS"

// passed returns the sockets of the process before.
func passed() []*os.File {
	fields := strings.Fields(os.Getenv(passedVariable))
	os.Unsetenv(passedVariable)
	if len(fields) == 0 || fields[0] != strconv.Itoa(os.Getpid()) {
		return nil
	}
	var files []*os.File
	for i := 1; i+1 < len(fields); i += 2 {
		if fd, err := strconv.Atoi(fields[i]); err == nil {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), fields[i+1]))
		}
	}
	return files
}
