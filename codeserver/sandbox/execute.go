package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"
)

// threads are how many a Go program may need to begin: six were seen with GOMAXPROCS=1.
const threads = 32

// join moves this process to its cgroup, which has room for it then. It returns the file to take that away by: one that is open
// can be written to where the file system is read only, and by whoever has no rights. There is none if there is no limit.
func (e *entry) join() (limit *os.File, err error) {
	for _, dir := range e.Groups {
		if e.Pids == 0 || limit != nil {
			break
		}
		limit, err = os.OpenFile(filepath.Join(dir, "pids.max"), os.O_WRONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is another controller's
		}
		if err != nil {
			return nil, err
		}
		if _, err := limit.WriteString(strconv.FormatInt(e.Pids+threads, 10)); err != nil {
			return nil, err
		}
	}
	for _, dir := range e.Groups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil { // is the process that writes
			return nil, err
		}
	}
	return limit, nil
}

// execute executes the program. The limit of processes is in force from then on, and before it starts one.
//
// Go's runtime may want a thread at any time, and fails without. It has no part in what is between the limit and the program:
// who makes system calls in this way is not parted from his processor, and is not interrupted (asyncpreemptoff) but where a
// function begins that needs stack.
func (e *entry) execute(limit *os.File) error {
	path, err := syscall.BytePtrFromString(e.Path)
	if err != nil {
		return err
	}
	args, err := syscall.SlicePtrFromStrings(e.Args)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(e.Env)
	if err != nil {
		return err
	}
	// It fails, but first gives back the limit of open files, which package os has raised.
	_ = syscall.Exec("", nil, nil)
	pids, room := strconv.AppendInt(nil, e.Pids, 10), strconv.AppendInt(nil, e.Pids+threads, 10)
	fd := uintptr(0)
	if limit != nil {
		fd = limit.Fd()
	}
	if fd != 0 {
		if _, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&pids[0])), uintptr(len(pids))); errno != 0 {
			return os.NewSyscallError("write", errno)
		}
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&env[0])))
	if fd != 0 { // so that it can say why
		_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&room[0])), uintptr(len(room)))
	}
	return errno
}
