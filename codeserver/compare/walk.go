package compare

import (
	"context"
	"errors"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

type digestProto = *repb.Digest

// maxDirectories bounds what one comparison reads: a page must not keep the host busy for long.
const maxDirectories = 100_000

var errTooLarge = errors.New("the trees differ in too many directories to compare them here")

// walk goes through two trees side by side.
type walk struct {
	ctx   context.Context //nolint:containedctx // of one call
	cas   cache.CAS
	read  int
	files []File
}

// parse returns the zero Digest for a tree that is not there.
func parse(p digestProto) (digest.Digest, error) {
	if p == nil {
		return digest.Digest{}, nil
	}
	return digest.FromProto(p)
}

// entry is what stands under a name: a file, a symlink or a directory.
type entry struct {
	file, dir digest.Digest
	link      string
}

func (w *walk) directory(d digest.Digest) (map[string]entry, error) {
	all := map[string]entry{}
	if d.IsZero() {
		return all, nil
	}
	if w.read++; w.read > maxDirectories {
		return nil, errTooLarge
	}
	msg := &repb.Directory{}
	if err := cache.ReadMessage(w.ctx, w.cas, d, msg); err != nil {
		return nil, err
	}
	for _, f := range msg.GetFiles() {
		fd, err := digest.FromProto(f.GetDigest())
		if err != nil {
			return nil, err
		}
		all[f.GetName()] = entry{file: fd}
	}
	for _, l := range msg.GetSymlinks() {
		all[l.GetName()] = entry{link: l.GetTarget()}
	}
	for _, c := range msg.GetDirectories() {
		cd, err := digest.FromProto(c.GetDigest())
		if err != nil {
			return nil, err
		}
		all[c.GetName()] = entry{dir: cd}
	}
	return all, nil
}

// dirs compares two directories, of which one may be the zero Digest.
func (w *walk) dirs(before, after digest.Digest, prefix string) error {
	if before == after {
		return nil
	}
	old, err := w.directory(before)
	if err != nil {
		return err
	}
	now, err := w.directory(after)
	if err != nil {
		return err
	}
	for name, b := range now {
		if err := w.entries(old[name], b, prefix+name); err != nil {
			return err
		}
	}
	for name, a := range old {
		if _, ok := now[name]; !ok {
			if err := w.entries(a, entry{}, prefix+name); err != nil {
				return err
			}
		}
	}
	return nil
}

// entries compares what stands under one path. A file that became a directory is removed, and what is below is added.
func (w *walk) entries(a, b entry, path string) error {
	isFile := func(e entry) bool { return e.link != "" || !e.file.IsZero() }
	switch {
	case isFile(a) && isFile(b) && a != b:
		w.files = append(w.files, File{path, Changed, a.file.Size(), b.file.Size()})
	case isFile(a) && !isFile(b):
		w.files = append(w.files, File{path, Removed, a.file.Size(), 0})
	case isFile(b) && !isFile(a):
		w.files = append(w.files, File{path, Added, 0, b.file.Size()})
	}
	return w.dirs(a.dir, b.dir, path+"/")
}
