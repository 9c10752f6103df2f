package asset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

const (
	maxMembers = 200_000
	smallFile  = 256 << 10 // up to which a file is held in memory until it is stored
	batchBytes = 4 << 20   // of small files that are stored together
)

var (
	// errArchive is wrapped by errors about what an archive holds.
	errArchive = errors.New("the archive is not fit to be a directory")
	// errLarge is wrapped by the error for an archive that unpacks to more than is allowed.
	errLarge = errors.New("the archive is too large to be unpacked here")
)

// unpacker stores the members of an archive as they are read. The tree is package merkle's, which refuses names and
// symlinks that leave it; what has been stored when an archive turns out to be hostile is named by nothing.
type unpacker struct {
	ctx      context.Context
	cas      cache.CAS
	spool    string
	sub      string // the directory that is wanted, "" or with a slash behind it
	unpacked int64  // bytes of files that may still come out
	members  int
	added    int
	tree     merkle.Builder
	files    map[string]digest.Digest // by path, for hard links
	batch    []cache.Blob
	size     int
}

// unpack stores what an archive holds, and returns the root of it or of the directory sub in it.
func (s *service) unpack(ctx context.Context, cas cache.CAS, f *os.File, size int64, sub string) (digest.Digest, error) {
	u := &unpacker{ctx: ctx, cas: cas, spool: s.Spool, unpacked: s.MaxBytes, files: map[string]digest.Digest{}}
	if sub != "" {
		u.sub = sub + "/"
	}
	if err := u.read(f, size, s.MaxBytes); err != nil {
		return digest.Digest{}, err
	}
	if err := u.flush(); err != nil {
		return digest.Digest{}, err
	}
	if sub != "" && u.added == 0 {
		return digest.Digest{}, fmt.Errorf("%w: it has nothing below the directory %.200q", errArchive, sub)
	}
	tree, err := u.tree.Build()
	if err != nil {
		return digest.Digest{}, err
	}
	return tree.Root(), tree.Put(ctx, cas)
}

// enter counts a member, and returns its path. Names are checked also where nothing comes of them.
func (u *unpacker) enter(name string) (string, error) {
	if u.members++; u.members > maxMembers {
		return "", fmt.Errorf("%w: it has more than %d members", errLarge, maxMembers)
	}
	path := clean(name)
	for part := range strings.SplitSeq(path, "/") {
		// To some a backslash parts directories, to others it is a letter.
		if part == ".." || part == "" && path != "" || strings.Contains(part, `\`) {
			return "", fmt.Errorf("%w: member %.200q", merkle.ErrPath, name)
		}
	}
	return path, nil
}

// clean takes away what tar puts around a path. It changes nothing about where the path leads.
func clean(name string) string {
	for strings.HasPrefix(name, "./") {
		name = strings.TrimPrefix(name, "./")
	}
	if name = strings.TrimSuffix(name, "/"); name == "." {
		return ""
	}
	return name
}

// file stores a member's content. What the archive says of its size decides only where it waits for its digest.
func (u *unpacker) file(path string, r io.Reader, size int64) error {
	if size > smallFile {
		return u.largeFile(path, r)
	}
	b, err := io.ReadAll(io.LimitReader(r, smallFile+1))
	if err != nil {
		return fmt.Errorf("member %.200q: %w", path, err)
	}
	if int64(len(b)) != size {
		return fmt.Errorf("%w: member %.200q has not the %d bytes that it declares", errArchive, path, size)
	}
	d := digest.FromBytes(b)
	u.batch, u.size = append(u.batch, cache.Blob{Digest: d, Data: b}), u.size+len(b)+100
	if u.size >= batchBytes {
		if err := u.flush(); err != nil {
			return err
		}
	}
	return u.add(path, d)
}

func (u *unpacker) largeFile(path string, r io.Reader) error {
	f, err := unnamed(u.spool)
	if err != nil {
		return err
	}
	defer f.Close()
	h := digest.SHA256.NewHasher()
	if _, err := io.Copy(io.MultiWriter(f, h), r); err != nil {
		return fmt.Errorf("member %.200q: %w", path, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	d := h.Digest()
	if err := u.cas.Put(u.ctx, d, f); err != nil {
		return err
	}
	return u.add(path, d)
}

func (u *unpacker) add(path string, d digest.Digest) error {
	u.files[path] = d
	return u.put(path, func(path string) error { return u.tree.File(path, d) })
}

func (u *unpacker) symlink(path, target string) error {
	return u.put(path, func(path string) error { return u.tree.Symlink(path, target) })
}

// put puts a member into the tree if it is of what is wanted.
func (u *unpacker) put(path string, add func(path string) error) error {
	path, ok := strings.CutPrefix(path, u.sub)
	if !ok {
		return nil
	}
	u.added++
	return add(path)
}

func (u *unpacker) flush() error {
	err := cache.PutAll(u.ctx, u.cas, u.batch)
	u.batch, u.size = nil, 0
	return err
}

// unnamed returns a file that goes away when it is closed, or with the process.
func unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "asset-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
