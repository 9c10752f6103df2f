package within

import (
	"syscall"
	"unsafe"
)

// What golang.org/x/sys/unix has and syscall has not, which is the same on every architecture.
const (
	prSetPdeathsig  = 1
	prCapbsetDrop   = 24
	prSetNoNewPrivs = 38

	sysMountSetattr = 442
	atRecursive     = 0x8000
	mountAttrRdonly = 0x1
	mountAttrNosuid = 0x2
	mountAttrNodev  = 0x4

	capabilityVersion3 = 0x20080522
	pollIn             = 0x1
)

func prctl(option int, arg uintptr) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, uintptr(option), arg, 0, 0, 0, 0)
	return orNil(errno)
}

// readable reports whether a read of the descriptor would not block: there is something, or its other end is closed.
func readable(fd int32) bool {
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: fd, events: pollIn}
	var now syscall.Timespec
	n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && n > 0
}

// dropCapabilities empties this thread's sets of capabilities.
func dropCapabilities() error {
	header := struct {
		version uint32
		pid     int32
	}{version: capabilityVersion3}
	var none [2]struct{ effective, permitted, inheritable uint32 }
	_, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	return orNil(errno)
}

// setMountAttributes sets attributes of the mount at path and all below it.
func setMountAttributes(path string, set uint64) error {
	p, err := syscall.BytePtrFromString(path)
	if err != nil {
		return err
	}
	attr := struct{ set, clear, propagation, userns uint64 }{set: set}
	_, _, errno := syscall.Syscall6(sysMountSetattr, ^uintptr(99), uintptr(unsafe.Pointer(p)), atRecursive,
		uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	return orNil(errno)
}

func orNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
