package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// made is a mount that is attached to nothing yet.
type made struct {
	at   string
	file *os.File
}

func closeAll(all []made) {
	for _, m := range all {
		m.file.Close()
	}
}

// makeAll makes a spec's mounts. It needs root, and changes nothing that anybody sees.
func makeAll(s *Spec) (all []made, err error) {
	var parts *os.File
	defer func() {
		if parts != nil {
			parts.Close()
		}
		if err != nil {
			closeAll(all)
		}
	}()
	for _, m := range s.Mounts {
		var fd int
		switch {
		case m.Part != "":
			if len(m.Parts) > 0 {
				if parts, err = makeParts(m); err != nil {
					return all, err
				}
			}
			if parts == nil {
				return all, fmt.Errorf("mount %s: there is no file system that it is a part of", m.At)
			}
			if fd, err = unix.OpenTree(int(parts.Fd()), m.Part, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err == nil {
				err = skeleton(fd, m)
			}
		case m.Proc:
			fd, err = fileSystem("proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, "hidepid", "invisible")
		case m.Source != "":
			fd, err = bind(m)
		default:
			fd, err = empty(m)
		}
		if err != nil {
			return all, fmt.Errorf("mount %s: %w", m.At, err)
		}
		all = append(all, made{m.At, os.NewFile(uintptr(fd), m.At)})
	}
	return all, nil
}

// fileSystem makes a file system. Options are names and values.
func fileSystem(kind string, attributes int, options ...string) (int, error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen "+kind, err)
	}
	defer unix.Close(ctx)
	for i := 0; i < len(options); i += 2 {
		if err := unix.FsconfigSetString(ctx, options[i], options[i+1]); err != nil {
			return -1, os.NewSyscallError("fsconfig "+options[i], err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attributes)
	return fd, os.NewSyscallError("fsmount", err)
}

// inodeSize is how large files are, at the least, of which a file system may be full: each takes the kernel's memory, too.
const inodeSize = 8 << 10

func memoryFS(size int64, mode string) (int, error) {
	return fileSystem("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "size", strconv.FormatInt(size, 10),
		"nr_inodes", strconv.FormatInt(size/inodeSize+64, 10), "mode", mode)
}

// makeParts makes a file system with directories that anybody may write to, and root owns: places in them for other mounts
// are not the user's to move.
func makeParts(m Mount) (*os.File, error) {
	fd, err := memoryFS(m.Size, "0755")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "parts")
	for _, name := range m.Parts {
		err = errors.Join(err, unix.Mkdirat(fd, name, 0o700), unix.Fchmodat(fd, name, 0o1777, 0))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// empty makes a file system that holds nothing but places for other mounts.
func empty(m Mount) (int, error) {
	fd, err := memoryFS(leastScratch, "0755")
	if err != nil {
		return -1, err
	}
	if err = skeleton(fd, m); err == nil {
		err = readOnly(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// skeleton makes the places for other mounts. Nobody else has the file system yet.
func skeleton(fd int, m Mount) error {
	root := filepath.Join("/proc/self/fd", strconv.Itoa(fd))
	for _, dir := range m.Dirs {
		if err := makeDirs(root, dir); err != nil {
			return err
		}
	}
	for _, file := range m.Files {
		if err := makeDirs(root, filepath.Dir(file)); err != nil {
			return err
		}
		f, err := os.OpenFile(filepath.Join(root, file), os.O_CREATE|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// makeDirs makes directories that everybody may pass, whatever the umask.
func makeDirs(root, dir string) error {
	if dir == "." {
		return nil
	}
	if err := makeDirs(root, filepath.Dir(dir)); err != nil {
		return err
	}
	path := filepath.Join(root, dir)
	if err := os.Mkdir(path, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(path, 0o755)
}

func bind(m Mount) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("open_tree "+m.Source, err)
	}
	if m.Writable {
		err = setAttributes(fd, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	} else {
		err = readOnly(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func readOnly(fd int) error {
	return setAttributes(fd, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

func setAttributes(fd int, attributes uint64) error {
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attributes}))
}

// attach puts a mount where it belongs in the file system of the calling thread.
func (m made) attach() error {
	err := unix.MoveMount(int(m.file.Fd()), "", unix.AT_FDCWD, m.at, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
	return os.NewSyscallError("move_mount "+m.at, err)
}
