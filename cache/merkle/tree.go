// Package merkle turns files into REAPI Directory trees and back.
//
// A tree's identity is the digest of its root Directory. Trees made here are canonical, so that every tool that
// follows the same rules arrives at the same digest: every file is executable, there are no empty directories and no
// node properties, symlinks are relative and stay inside the tree, names are the raw bytes of their UTF-8, sorted, and
// messages are marshalled deterministically. See the Remote Execution API, messages Directory and Tree.
package merkle

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// ErrPath is wrapped by every error about a name or a symlink that may not stand in a tree.
var ErrPath = errors.New("path not allowed in a tree")

// Limits of a tree, far above any real one: what is larger is refused before it fills the memory.
const (
	maxEntries = 5_000_000
	maxDepth   = 200
)

// Tree is an immutable tree: all its Directories, but no file contents.
type Tree struct {
	root  digest.Digest
	dirs  map[digest.Digest]*directory
	order []digest.Digest // children before parents, each once
}

type directory struct {
	msg   *repb.Directory
	data  []byte
	files []digest.Digest // of msg's files, parsed once
	dirs  []digest.Digest // of its directories
}

// newDirectory returns a Directory whose digests have been checked.
func newDirectory(msg *repb.Directory, data []byte, fn digest.Function) *directory {
	d := &directory{
		msg: msg, data: data, files: make([]digest.Digest, 0, len(msg.GetFiles())), dirs: make([]digest.Digest, 0, len(msg.GetDirectories())),
	}
	for _, f := range msg.GetFiles() {
		fd, _ := fn.FromProto(f.GetDigest())
		d.files = append(d.files, fd)
	}
	for _, c := range msg.GetDirectories() {
		cd, _ := fn.FromProto(c.GetDigest())
		d.dirs = append(d.dirs, cd)
	}
	return d
}

// Sub returns the tree below a directory at the top; false if there is none of that name.
func (t *Tree) Sub(name string) (*Tree, bool) {
	top := t.dirs[t.root]
	for i, c := range top.msg.GetDirectories() {
		if c.GetName() == name {
			sub := &Tree{root: top.dirs[i], dirs: map[digest.Digest]*directory{}}
			return sub, sub.addTree(t, sub.root) == nil
		}
	}
	return nil, false
}

// Root returns the digest of the root Directory, which identifies the tree.
func (t *Tree) Root() digest.Digest { return t.root }

// Blobs yields each Directory once, children before parents.
func (t *Tree) Blobs() iter.Seq2[digest.Digest, []byte] {
	return func(yield func(digest.Digest, []byte) bool) {
		for _, d := range t.order {
			if !yield(d, t.dirs[d].data) {
				return
			}
		}
	}
}

// Proto returns the REAPI Tree: the root, then every other Directory once, sorted by digest.
func (t *Tree) Proto() *repb.Tree {
	p := &repb.Tree{Root: t.dirs[t.root].msg}
	children := slices.Clone(t.order)
	slices.SortFunc(children, digest.Digest.Compare)
	for _, d := range children {
		if d != t.root {
			p.Children = append(p.Children, t.dirs[d].msg)
		}
	}
	return p
}

// Files yields the path and digest of every file, in the order of a walk: each Directory's files, then its directories.
func (t *Tree) Files() iter.Seq2[string, digest.Digest] {
	return func(yield func(string, digest.Digest) bool) {
		t.walk(t.root, "", func(path string, d digest.Digest, link string) bool {
			return link != "" || yield(path, d)
		})
	}
}

// Symlinks yields the path and target of every symlink.
func (t *Tree) Symlinks() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		t.walk(t.root, "", func(path string, _ digest.Digest, link string) bool {
			return link == "" || yield(path, link)
		})
	}
}

// Entries returns the number of files and symlinks, a shared Directory's counted as often as it stands in the tree.
func (t *Tree) Entries() int {
	n := 0
	t.walk(t.root, "", func(string, digest.Digest, string) bool { n++; return true })
	return n
}

// walk calls fn for each file (with its digest) and symlink (with its target) below d until fn returns false.
func (t *Tree) walk(d digest.Digest, prefix string, fn func(path string, d digest.Digest, link string) bool) bool {
	dir := t.dirs[d]
	for i, f := range dir.msg.GetFiles() {
		if !fn(prefix+f.GetName(), dir.files[i], "") {
			return false
		}
	}
	for _, l := range dir.msg.GetSymlinks() {
		if !fn(prefix+l.GetName(), digest.Digest{}, l.GetTarget()) {
			return false
		}
	}
	for i, c := range dir.msg.GetDirectories() {
		if !t.walk(dir.dirs[i], prefix+c.GetName()+"/", fn) {
			return false
		}
	}
	return true
}

// Node is a directory where it stands in a tree.
type Node struct {
	Path   string // "" for the root
	Digest digest.Digest
	dir    *directory
}

// Nodes yields every directory, parents before children.
func (t *Tree) Nodes() iter.Seq[Node] {
	return func(yield func(Node) bool) { t.nodes(t.root, "", yield) }
}

func (t *Tree) nodes(d digest.Digest, path string, yield func(Node) bool) bool {
	dir := t.dirs[d]
	if !yield(Node{path, d, dir}) {
		return false
	}
	for i, c := range dir.msg.GetDirectories() {
		if !t.nodes(dir.dirs[i], join(path, c.GetName()), yield) {
			return false
		}
	}
	return true
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

// Files yields the name and digest of every file in the directory itself, in the order of names.
func (n Node) Files() iter.Seq2[string, digest.Digest] {
	return func(yield func(string, digest.Digest) bool) {
		for i, f := range n.dir.msg.GetFiles() {
			if !yield(f.GetName(), n.dir.files[i]) {
				return
			}
		}
	}
}

// Beyond returns all that the tree consists of but for the Directories that are known, and their files: a known one's
// own Directories are looked at like any other.
func (t *Tree) Beyond(known func(digest.Digest) bool) []digest.Digest {
	var all []digest.Digest
	for _, d := range t.order {
		if !known(d) {
			all = append(append(all, d), t.dirs[d].files...)
		}
	}
	return all
}

// Directory returns the message of one of the tree's Directories; it must not be changed.
func (t *Tree) Directory(d digest.Digest) (*repb.Directory, bool) {
	dir, ok := t.dirs[d]
	if !ok {
		return nil, false
	}
	return dir.msg, true
}

// Put stores those of the tree's Directories that the CAS lacks. Until it returns nil any subset of them may be there:
// whoever names the root afterwards names a tree that is whole.
func (t *Tree) Put(ctx context.Context, cas cache.CAS) error {
	missing, err := cas.FindMissing(ctx, t.order)
	if err != nil {
		return err
	}
	blobs := make([]cache.Blob, len(missing))
	for i, d := range missing {
		blobs[i] = cache.Blob{Digest: d, Data: t.dirs[d].data}
	}
	if err := cache.PutAll(ctx, cas, blobs); err != nil {
		return fmt.Errorf("store the Directories of %s: %w", t.root, err)
	}
	return nil
}
