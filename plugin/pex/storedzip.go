package pex

import (
	"archive/zip"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"
)

// storedZip writes zips that are the same for the same members: nothing compressed, every date 1980-01-01, headers as
// Python's zipfile makes them on Unix.
type storedZip struct{ w *zip.Writer }

func newStoredZip(w io.Writer) *storedZip { return &storedZip{zip.NewWriter(w)} }

const (
	zipVersion  = 20
	unixCreator = 3 << 8
	date1980    = 1<<5 | 1 // month 1, day 1
)

func header(name string, mode fs.FileMode) *zip.FileHeader {
	attrs := uint32(0o100000|mode.Perm()) << 16
	if strings.HasSuffix(name, "/") {
		attrs = uint32(0o40755)<<16 | 0x10
	}
	h := &zip.FileHeader{
		Name: name, CreatorVersion: unixCreator | zipVersion, ReaderVersion: zipVersion, Method: zip.Store,
		//lint:ignore SA1019 Modified would add a header that Python's zipfile does not write
		ModifiedDate: date1980, ExternalAttrs: attrs,
	}
	for _, c := range name {
		if c >= 0x80 {
			h.Flags |= 0x800 // the name is UTF-8
			break
		}
	}
	return h
}

func (z *storedZip) add(name string, content []byte, mode fs.FileMode) error {
	h := header(name, mode)
	h.CRC32 = crc32.ChecksumIEEE(content)
	h.CompressedSize64, h.UncompressedSize64 = uint64(len(content)), uint64(len(content))
	w, err := z.w.CreateRaw(h)
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}

// addReader adds a member of which only the size is known; its checksum follows it.
func (z *storedZip) addReader(name string, r io.Reader, mode fs.FileMode) error {
	w, err := z.w.CreateHeader(header(name, mode))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}

func (z *storedZip) close() error { return z.w.Close() }
