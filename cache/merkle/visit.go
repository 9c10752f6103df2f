package merkle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// ErrTooLarge is wrapped by the error of a visit that meets more than its Bounds allow.
var ErrTooLarge = errors.New("tree is too large")

// Bounds limit what one visit reads.
type Bounds struct {
	Directories int   // distinct ones
	Bytes       int64 // of their messages together
}

// DefaultBounds are far above any real tree. What a visit remembers of a Directory is about a hundred bytes.
var DefaultBounds = Bounds{Directories: 2_000_000, Bytes: 4 << 30}

// Directory is a Directory that a visit has read. Data is only lent: it is overwritten after the call.
type Directory struct {
	Digest      digest.Digest
	Data        []byte
	Files       []digest.Digest
	Directories []digest.Digest
}

// Visitor is told what a visit finds. Each of the two may end the visit with an error.
type Visitor struct {
	Directory func(Directory) error
	Missing   func(digest.Digest, error) error // nil ends the visit with the error, which wraps cache.ErrNotFound
}

// Visit reads the Directories of the tree below root, breadth first, parents before children and each distinct one once:
// a tree costs what its Directories do, however often they stand in it. In contrast to [Load] it takes every client's
// tree: whatever the order of the names, empty directories, node properties, and symlinks that lead anywhere. It asks
// of a Directory only that it is one and that its digests are digests.
func Visit(ctx context.Context, cas cache.CAS, root digest.Digest, bounds Bounds, v Visitor) error {
	w := &walk{ctx: ctx, cas: cas, bounds: bounds, v: v, seen: map[digest.Digest]struct{}{root: {}}}
	for level := []digest.Digest{root}; len(level) > 0; {
		w.next = nil
		for len(level) > 0 {
			n := w.portion(level)
			if err := w.read(level[:n]); err != nil {
				return fmt.Errorf("tree %s: %w", root, err)
			}
			level = level[n:]
		}
		level = w.next
	}
	return nil
}

type walk struct {
	ctx    context.Context
	cas    cache.CAS
	bounds Bounds
	v      Visitor
	seen   map[digest.Digest]struct{}
	bytes  int64
	next   []digest.Digest
}

// Limits of what is read at once: a batch of a level is held in memory.
const (
	portionDirs  = 1000
	portionBytes = 4 << 20
)

// portion returns how many of ds to read at once, at least one.
func (w *walk) portion(ds []digest.Digest) int {
	n, size := 0, int64(0)
	for n < len(ds) && n < portionDirs && (n == 0 || ds[n].Size() < portionBytes-size) {
		size += ds[n].Size()
		n++
	}
	return n
}

func (w *walk) read(ds []digest.Digest) error {
	for _, d := range ds {
		if d.Size() > cache.MaxMessage || d.Size() > w.bounds.Bytes-w.bytes {
			return fmt.Errorf("%w: Directory %s takes it above %d bytes", ErrTooLarge, d, min(cache.MaxMessage, w.bounds.Bytes))
		}
		w.bytes += d.Size()
	}
	// They come in any order, and are visited in that of the tree: what comes before its turn is held.
	type answer struct {
		data []byte
		err  error
	}
	early := map[int]answer{}
	turn := 0
	var failed error
	err := cache.GetAll(w.ctx, w.cas, ds, cache.MaxMessage, func(i int, data []byte, err error) {
		if failed != nil {
			return
		}
		if i != turn {
			early[i] = answer{bytes.Clone(data), err}
			return
		}
		for a, ok := (answer{data, err}), true; ok && failed == nil; a, ok = early[turn] {
			delete(early, turn)
			failed = w.visit(ds[turn], a.data, a.err)
			turn++
		}
	})
	if failed != nil {
		return failed
	}
	return err
}

func (w *walk) visit(d digest.Digest, data []byte, err error) error {
	if errors.Is(err, cache.ErrNotFound) && w.v.Missing != nil {
		return w.v.Missing(d, err)
	}
	if err != nil {
		return fmt.Errorf("Directory %s: %w", d, err)
	}
	dir, err := ParseDirectory(d, data)
	if err != nil {
		return err
	}
	for _, c := range dir.Directories {
		if _, ok := w.seen[c]; ok {
			continue
		}
		if len(w.seen) >= w.bounds.Directories {
			return fmt.Errorf("%w: more than %d distinct Directories", ErrTooLarge, w.bounds.Directories)
		}
		w.seen[c] = struct{}{}
		w.next = append(w.next, c)
	}
	return w.v.Directory(dir)
}

// Numbers of the fields that are read here, from the Remote Execution API.
const (
	directoryFiles       = 1
	directoryDirectories = 2
	nodeDigest           = 2
	digestHash           = 1
	digestSize           = 2
	treeRoot             = 1
	treeChildren         = 2
)

// ParseDirectory reads the digests of a Directory's nodes, which are by the same function as its own. It shares data's memory.
func ParseDirectory(d digest.Digest, data []byte) (Directory, error) {
	const node = 110 // bytes of most
	dir := Directory{Digest: d, Data: data, Files: make([]digest.Digest, 0, len(data)/node)}
	err := fields(data, func(num protowire.Number, node []byte) error {
		if num != directoryFiles && num != directoryDirectories {
			return nil
		}
		nd, err := nodesDigest(d.Function(), node)
		if err != nil {
			return err
		}
		if num == directoryFiles {
			dir.Files = append(dir.Files, nd)
		} else {
			dir.Directories = append(dir.Directories, nd)
		}
		return nil
	})
	if err != nil {
		return Directory{}, fmt.Errorf("blob %s is not a Directory: %w", d, err)
	}
	return dir, nil
}

func nodesDigest(fn digest.Function, node []byte) (digest.Digest, error) {
	var hash []byte
	var size int64
	err := fields(node, func(num protowire.Number, b []byte) error {
		if num != nodeDigest {
			return nil
		}
		return eachField(b, func(num protowire.Number, b []byte, n uint64) error {
			switch {
			case num == digestHash && b != nil:
				hash = b
			case num == digestSize && b == nil:
				size = int64(n)
			}
			return nil
		})
	})
	if err != nil {
		return digest.Digest{}, err
	}
	return fn.New(string(hash), size)
}

// fields calls each for the length-delimited fields of a message.
func fields(data []byte, each func(num protowire.Number, b []byte) error) error {
	return eachField(data, func(num protowire.Number, b []byte, _ uint64) error {
		if b == nil {
			return nil
		}
		return each(num, b)
	})
}

// eachField calls each for the fields of a message: with b, not nil, if length-delimited, with n if a varint.
func eachField(data []byte, each func(num protowire.Number, b []byte, n uint64) error) error {
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return errNoMessage(n)
		}
		data = data[n:]
		var b []byte
		var v uint64
		switch typ {
		case protowire.BytesType:
			if b, n = protowire.ConsumeBytes(data); n >= 0 && b == nil {
				b = []byte{}
			}
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(data)
		default:
			n = protowire.ConsumeFieldValue(num, typ, data)
		}
		if n < 0 {
			return errNoMessage(n)
		}
		data = data[n:]
		if typ != protowire.BytesType && typ != protowire.VarintType {
			continue
		}
		if err := each(num, b, v); err != nil {
			return err
		}
	}
	return nil
}

func errNoMessage(n int) error {
	return fmt.Errorf("%w: %w", ErrMessage, protowire.ParseError(n))
}

// ErrMessage is wrapped by the error for bytes that are no protocol buffer message.
var ErrMessage = errors.New("malformed message")

// SplitTree returns the Directories of a Tree message as they stand in it, the root first: a client's own encoding
// keeps its digests. They share data's memory.
func SplitTree(data []byte, fn digest.Function) ([]cache.Blob, error) {
	root := []byte{}
	var children []cache.Blob
	err := fields(data, func(num protowire.Number, b []byte) error {
		switch num {
		case treeRoot:
			// A message field that stands there twice is merged, which for its encoding means joined.
			root = append(root[:len(root):len(root)], b...)
		case treeChildren:
			children = append(children, cache.Blob{Digest: fn.FromBytes(b), Data: b})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("not a Tree: %w", err)
	}
	return append([]cache.Blob{{Digest: fn.FromBytes(root), Data: root}}, children...), nil
}

// WithDirectories returns cas as it looks to a reader that holds dirs already, those of a Tree message: a Directory
// that the Tree lacks may still be in the CAS.
func WithDirectories(cas cache.CAS, dirs []cache.Blob) cache.CAS {
	held := make(map[digest.Digest][]byte, len(dirs))
	for _, b := range dirs {
		held[b.Digest] = b.Data
	}
	return withDirectories{cas, held}
}

type withDirectories struct {
	cache.CAS
	held map[digest.Digest][]byte
}

// Get implements cache.CAS.
func (w withDirectories) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if b, ok := w.held[d]; ok {
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	return w.CAS.Get(ctx, d)
}
