package plugin

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbid has the kernel refuse, to this process and its children, what isolation is made of, as container runtimes do
// by default.
func forbid(filter string) error {
	const (
		nr, arg0 = 0, 16 // offsets in struct seccomp_data
		refuse   = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	test := func(op uint16, k uint32, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jf: no, K: k}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	var prog []unix.SockFilter
	switch filter {
	case "":
		return nil
	case "namespaces":
		prog = []unix.SockFilter{
			load(nr), test(unix.BPF_JEQ, unix.SYS_CLONE, 3),
			load(arg0), test(unix.BPF_JSET, unix.CLONE_NEWUSER, 1), ret(refuse),
			load(nr), test(unix.BPF_JEQ, unix.SYS_CLONE3, 1), ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)),
			ret(unix.SECCOMP_RET_ALLOW),
		}
	case "mounts":
		prog = []unix.SockFilter{load(nr), test(unix.BPF_JEQ, unix.SYS_MOUNT, 1), ret(refuse), ret(unix.SECCOMP_RET_ALLOW)}
	default:
		return fmt.Errorf("no filter %q", filter)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return errno
	}
	return nil
}
