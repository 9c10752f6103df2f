package asset

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
)

const (
	maxTarget = 4 << 10  // bytes of a symlink's target
	maxList   = 64 << 20 // bytes of a zip's list of members, which takes several times as much memory
)

// read reads an archive. Its own bytes say of what kind it is: tar, tar compressed by gzip, or zip. No more than limit
// bytes come out of a compression.
func (u *unpacker) read(f *os.File, size, limit int64) error {
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return u.zip(f, size)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(bufio.NewReaderSize(f, 64<<10))
		if err != nil {
			return fmt.Errorf("%w: %w", errArchive, err)
		}
		// Headers and padding come on top of what the files have, and are bounded with them.
		left := limit + maxList
		return u.tar(bounded{z, u, &left})
	case len(head) == 512 && bytes.Equal(head[257:262], []byte("ustar")):
		return u.tar(f)
	}
	return fmt.Errorf("%w: it is neither a tar, a tar by gzip, nor a zip", errArchive)
}

// bounded reads what comes out of an archive, as long as that is not too much and the call goes on. Its errors say whose
// fault they are.
type bounded struct {
	io.Reader
	u    *unpacker
	left *int64
}

func (b bounded) Read(p []byte) (int, error) {
	if err := b.u.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.Reader.Read(p)
	if *b.left -= int64(n); *b.left < 0 {
		return 0, errLarge
	}
	return n, b.u.fault(err)
}

// fault marks an error of reading as the archive's, if it is.
func (u *unpacker) fault(err error) error {
	if err == nil || err == io.EOF || errors.Is(err, errLarge) || errors.Is(err, errArchive) || u.ctx.Err() != nil { //nolint:errorlint // io.EOF as readers return it
		return err
	}
	return fmt.Errorf("%w: %w", errArchive, err)
}

// tar reads all of r, so that the checksum at its end counts.
func (u *unpacker) tar(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return u.fault(err)
		}
		// A sparse file has more bytes than its tar, so files are counted by themselves.
		if err := u.tarMember(h, bounded{t, u, &u.unpacked}); err != nil {
			return err
		}
	}
}

func (u *unpacker) tarMember(h *tar.Header, r io.Reader) error {
	path, err := u.enter(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader, tar.TypeDir: // git puts a commit's hash into the first
		return nil
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(path, r, h.Size)
	case tar.TypeSymlink:
		return u.symlink(path, h.Linkname)
	case tar.TypeLink:
		d, ok := u.files[clean(h.Linkname)]
		if !ok {
			return fmt.Errorf("%w: %.200q is a hard link to %.200q, which is no file before it", errArchive, h.Name, h.Linkname)
		}
		return u.add(path, d)
	}
	return fmt.Errorf("%w: %.200q is a device or something else that is neither file, directory nor link", errArchive, h.Name)
}

// briefly fails once more than left bytes were read: archive/zip lists every member before one can count them.
type briefly struct {
	io.ReaderAt
	left atomic.Int64
}

func (r *briefly) ReadAt(p []byte, off int64) (int, error) {
	if r.left.Add(-int64(len(p))) < 0 {
		return 0, fmt.Errorf("%w: its list of members has more than %d bytes", errLarge, maxList)
	}
	return r.ReaderAt.ReadAt(p, off)
}

func (u *unpacker) zip(f io.ReaderAt, size int64) error {
	list := &briefly{ReaderAt: f}
	list.left.Store(maxList)
	z, err := zip.NewReader(list, size)
	if err != nil {
		return u.fault(err)
	}
	list.left.Store(1 << 62)
	for _, m := range z.File {
		if err := u.zipMember(m); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) zipMember(m *zip.File) error {
	path, err := u.enter(m.Name)
	if err != nil || strings.HasSuffix(m.Name, "/") {
		return err
	}
	r, err := m.Open()
	if err != nil {
		return fmt.Errorf("%w: %.200q: %w", errArchive, m.Name, err)
	}
	defer r.Close()
	in := bounded{r, u, &u.unpacked}
	switch m.Mode().Type() {
	case 0:
		return u.file(path, in, int64(min(m.UncompressedSize64, 1<<62)))
	case fs.ModeSymlink:
		target, err := io.ReadAll(io.LimitReader(in, maxTarget))
		if err != nil {
			return err
		}
		return u.symlink(path, string(target))
	}
	return fmt.Errorf("%w: %.200q is neither file, directory nor symlink", errArchive, m.Name)
}
