package merkle

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/digest"
)

// The index is a flat file: a magic line, records, and the sha256 of all before it. Integers are little-endian:
//
//	path length uint16, path, dev, ino, size, mtime, ctime uint64, sha256 [32]byte
const indexMagic = "pexpress index 1\n"

// maxIndex bounds the records kept: past it those of files that were not asked for this time are dropped.
const maxIndex = 500_000

// glance is how many files that were not asked for this time a Save looks at, to forget those that are gone: few enough
// to cost a few milliseconds, enough to keep up with what projects leave behind.
const glance = 2000

func encodeIndex(records map[string]record) []byte {
	b := []byte(indexMagic)
	for path, r := range records {
		if len(path) > 1<<16-1 {
			continue
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(len(path)))
		b = append(b, path...)
		for _, n := range []uint64{r.stamp.dev, r.stamp.ino, uint64(r.stamp.size), uint64(r.stamp.mtime), uint64(r.stamp.ctime)} {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
		sum := r.digest.Sum()
		b = append(b, sum[:]...)
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// decodeIndex returns what it can trust: all of a whole index, nothing of another.
func decodeIndex(b []byte) map[string]record {
	const fixed = 5*8 + sha256.Size
	records := make(map[string]record, len(b)/(fixed+2+50)) // of paths that are as long as most
	if len(b) < len(indexMagic)+sha256.Size || string(b[:len(indexMagic)]) != indexMagic {
		return records
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sha256.Sum256(body) != [sha256.Size]byte(sum) {
		return records
	}
	for b = body[len(indexMagic):]; len(b) > 0; {
		if len(b) < 2 {
			return map[string]record{}
		}
		n := int(binary.LittleEndian.Uint16(b))
		if len(b) < 2+n+fixed {
			return map[string]record{}
		}
		path := string(b[2 : 2+n])
		b = b[2+n:]
		var v [5]uint64
		for i := range v {
			v[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
		s := stamp{v[0], v[1], int64(v[2]), int64(v[3]), int64(v[4])}
		if s.size < 0 {
			return map[string]record{}
		}
		records[path] = record{s, digest.FromSum([sha256.Size]byte(b[40:fixed]), s.size)}
		b = b[fixed:]
	}
	return records
}

// Save writes what was learned, in one step; of several processes that save at once the last one wins.
func (h *Hasher) Save() error {
	if h.path == "" || !h.dirty.Load() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	all := maps.Clone(h.old)
	if len(all) > maxIndex {
		clear(all)
	}
	maps.Copy(all, h.fresh)
	h.prune(all)
	f, err := os.CreateTemp(filepath.Dir(h.path), ".index-*")
	if err != nil {
		return fmt.Errorf("save the index of file digests: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(encodeIndex(all))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		// No fsync: a torn index fails its checksum and costs one rehash, no more.
		err = os.Rename(f.Name(), h.path)
	}
	if err != nil {
		return fmt.Errorf("save the index of file digests: %w", err)
	}
	h.dirty.Store(false)
	return nil
}

// prune drops the records of files that are gone, among those it looks at: other ones each time, as maps have no order.
func (h *Hasher) prune(all map[string]record) {
	left := glance
	for path := range all {
		if _, asked := h.fresh[path]; asked {
			continue
		}
		if left--; left < 0 {
			return
		}
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			delete(all, path)
		}
	}
}
