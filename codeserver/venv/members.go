package venv

import (
	"archive/zip"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// limits bound what a wheel may make of itself.
type limits struct {
	members   int   // entries of the archive
	directory int64 // bytes read to list them
	total     int64 // bytes of all members, uncompressed
	ratio     int64 // total to the wheel's own size, above free bytes
	free      int64
}

func defaultLimits() limits {
	return limits{members: 500_000, directory: 64 << 20, total: 8 << 30, ratio: 200, free: 64 << 20}
}

// member is a file of a wheel and where it goes in the unpacked wheel.
type member struct {
	*zip.File
	dest string // slash-separated, begins with site/, bin/, include/ or data/
	exec bool
}

// boundedReaderAt fails once more than left bytes were read. archive/zip lists every entry before one can count them.
type boundedReaderAt struct {
	io.ReaderAt
	left atomic.Int64
}

func (r *boundedReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if r.left.Add(-int64(len(p))) < 0 {
		return 0, zip.ErrFormat
	}
	return r.ReaderAt.ReadAt(p, off)
}

// members lists the archive and returns what may be unpacked, every name, type and size checked.
func (n wheelName) members(r io.ReaderAt, size int64, lim limits) ([]member, error) {
	bounded := &boundedReaderAt{ReaderAt: r}
	bounded.left.Store(lim.directory)
	zr, err := zip.NewReader(bounded, size)
	if err != nil {
		return nil, n.refuse("", "its list of members: %w", err)
	}
	bounded.left.Store(1 << 62)
	if len(zr.File) > lim.members {
		return nil, n.refuse("", "more than %d members", lim.members)
	}
	var ms []member
	var total uint64
	seen := paths{"site": true, "bin": true, "include": true, "data": true}
	for _, f := range zr.File {
		if err := n.checkMember(f); err != nil {
			return nil, err
		}
		total += f.UncompressedSize64
		if f.UncompressedSize64 > uint64(lim.total) || total > uint64(lim.total) {
			return nil, n.refuse(f.Name, "the wheel's members exceed %d bytes", lim.total)
		}
		m := member{File: f, exec: f.Mode()&0o111 != 0}
		if m.dest, err = n.destination(f.Name); err != nil {
			return nil, err
		}
		if !seen.add(m.dest, strings.HasSuffix(f.Name, "/")) {
			return nil, n.refuse(f.Name, "the name is there twice, or as a file and a directory")
		}
		if !strings.HasSuffix(f.Name, "/") {
			ms = append(ms, m)
		}
	}
	if total > uint64(lim.free) && total/uint64(lim.ratio) > uint64(size) {
		return nil, n.refuse("", "%d bytes would become %d", size, total)
	}
	return ms, nil
}

// checkMember looks at one entry by itself.
func (n wheelName) checkMember(f *zip.File) error {
	name := strings.TrimSuffix(f.Name, "/")
	switch {
	case strings.ContainsRune(f.Name, 0):
		return n.refuse(f.Name, "a NUL in the name")
	case !utf8.ValidString(f.Name):
		return n.refuse(f.Name, "the name is not UTF-8")
	case strings.Contains(name, `\`):
		return n.refuse(f.Name, "a backslash in the name")
	case strings.HasPrefix(name, "/"):
		return n.refuse(f.Name, "an absolute path")
	case len(name) >= 2 && name[1] == ':':
		return n.refuse(f.Name, "a drive in the name")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return n.refuse(f.Name, "the path has a part %q", part)
		}
	}
	// The mode's type is looked at whatever system the entry says it was made on.
	kind := f.ExternalAttrs >> 16 & unix.S_IFMT
	isDir := strings.HasSuffix(f.Name, "/")
	switch {
	case kind == unix.S_IFLNK:
		return n.refuse(f.Name, "a symlink")
	case kind != 0 && kind != unix.S_IFREG && kind != unix.S_IFDIR, isDir != f.Mode().IsDir():
		return n.refuse(f.Name, "neither a file nor a directory")
	case isDir && f.UncompressedSize64 != 0:
		return n.refuse(f.Name, "a directory with content")
	case f.Flags&1 != 0:
		return n.refuse(f.Name, "encrypted")
	}
	return nil
}

// destination is where a member goes (PEP 427, "Installing a wheel").
func (n wheelName) destination(name string) (string, error) {
	top, rest, below := strings.Cut(name, "/")
	switch {
	case !below || !strings.HasSuffix(top, ".data"):
		return path.Join("site", name), nil
	case rest == "":
		return top, nil // the entry of the .data directory itself
	}
	kind, file, inside := strings.Cut(strings.TrimSuffix(rest, "/"), "/")
	roots := map[string]string{"purelib": "site", "platlib": "site", "scripts": "bin", "headers": "include", "data": "data"}
	root, ok := roots[kind]
	switch {
	case !ok:
		return "", n.refuse(name, "%q is no kind of file that can be installed", kind)
	case root == "bin" && strings.Contains(file, "/"):
		return "", n.refuse(name, "a script in a directory of its own")
	case !inside:
		return root, nil
	}
	return root + "/" + file, nil
}

// paths are the slash-separated paths of files (false) and directories (true) that were seen.
type paths map[string]bool

// add reports whether p can stand beside the others. A directory may be added again.
func (ps paths) add(p string, dir bool) bool {
	if was, ok := ps[p]; ok {
		return dir && was
	}
	for up := path.Dir(p); up != "."; up = path.Dir(up) {
		was, ok := ps[up]
		if ok && !was {
			return false
		}
		if ok {
			break
		}
		ps[up] = true
	}
	ps[p] = dir
	return true
}
