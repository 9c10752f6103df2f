package merkle

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache/digest"
)

// Builder collects files and symlinks and makes the canonical tree of them. The zero value is an empty tree.
type Builder struct {
	root entry
}

// entry is one node of the tree that is being built: exactly one of its fields is set.
type entry struct {
	digest   digest.Digest
	link     string
	tree     *Tree
	children map[string]*entry
}

// File puts a file at path, a slash-separated path relative to the tree's root.
func (b *Builder) File(path string, d digest.Digest) error {
	if d.IsZero() {
		return fmt.Errorf("file %q has no digest", path)
	}
	return b.add(path, &entry{digest: d})
}

// Symlink puts a symlink at path. The target is relative to the symlink's directory and must not leave the tree.
func (b *Builder) Symlink(path, target string) error {
	if err := checkLink(path, target); err != nil {
		return err
	}
	return b.add(path, &entry{link: target})
}

// Graft makes sub the directory at path. Its Directories are taken over as they are, so that a large tree costs little.
func (b *Builder) Graft(path string, sub *Tree) error {
	if root, _ := sub.Directory(sub.root); len(root.GetFiles())+len(root.GetSymlinks())+len(root.GetDirectories()) == 0 {
		return nil // there are no empty directories
	}
	return b.add(path, &entry{tree: sub})
}

func (b *Builder) add(path string, e *entry) error {
	names := strings.Split(path, "/")
	if len(names) > maxDepth {
		return fmt.Errorf("%w: %.200q is more than %d directories deep", ErrPath, path, maxDepth)
	}
	at := &b.root
	for i, name := range names {
		if err := checkName(name); err != nil {
			return fmt.Errorf("%w in %q", err, path)
		}
		if at.children == nil {
			at.children = map[string]*entry{}
		}
		next, ok := at.children[name]
		switch last := i == len(names)-1; {
		case last && ok:
			return fmt.Errorf("%w: %q stands there twice", ErrPath, path)
		case last:
			at.children[name] = e
			return nil
		case !ok:
			next = &entry{children: map[string]*entry{}}
			at.children[name] = next
		case next.children == nil:
			return fmt.Errorf("%w: %q is not a directory to add to, but %q lies below it", ErrPath, strings.Join(names[:i+1], "/"), path)
		}
		at = next
	}
	return nil
}

// Build returns the tree of what has been added.
func (b *Builder) Build() (*Tree, error) {
	t := &Tree{dirs: map[digest.Digest]*directory{}}
	var err error
	if t.root, err = t.addEntry(&b.root); err != nil {
		return nil, err
	}
	return t, t.checkLinks()
}

// addEntry adds the Directory of e and all below it.
func (t *Tree) addEntry(e *entry) (digest.Digest, error) {
	names := make([]string, 0, len(e.children))
	for name := range e.children {
		names = append(names, name)
	}
	slices.Sort(names)
	msg := &repb.Directory{}
	for _, name := range names {
		c := e.children[name]
		switch {
		case !c.digest.IsZero():
			msg.Files = append(msg.Files, &repb.FileNode{Name: name, Digest: c.digest.Proto(), IsExecutable: true})
		case c.link != "":
			msg.Symlinks = append(msg.Symlinks, &repb.SymlinkNode{Name: name, Target: c.link})
		case c.tree != nil:
			if err := t.addTree(c.tree, c.tree.root); err != nil {
				return digest.Digest{}, err
			}
			msg.Directories = append(msg.Directories, &repb.DirectoryNode{Name: name, Digest: c.tree.root.Proto()})
		default:
			d, err := t.addEntry(c)
			if err != nil {
				return d, err
			}
			msg.Directories = append(msg.Directories, &repb.DirectoryNode{Name: name, Digest: d.Proto()})
		}
	}
	return t.addMessage(msg)
}

// addTree takes over the Directory d of another tree and all below it.
func (t *Tree) addTree(from *Tree, d digest.Digest) error {
	if _, ok := t.dirs[d]; ok {
		return nil
	}
	dir, ok := from.dirs[d]
	if !ok {
		return fmt.Errorf("tree %s lacks its Directory %s", from.root, d)
	}
	for _, c := range dir.msg.GetDirectories() {
		cd, err := d.Function().FromProto(c.GetDigest())
		if err == nil {
			err = t.addTree(from, cd)
		}
		if err != nil {
			return err
		}
	}
	t.dirs[d] = dir
	t.order = append(t.order, d)
	return nil
}

// addMessage adds a Directory whose children are there already.
func (t *Tree) addMessage(msg *repb.Directory) (digest.Digest, error) {
	data, d, err := digest.Marshal(msg)
	if err != nil {
		return d, err
	}
	if _, ok := t.dirs[d]; !ok {
		t.dirs[d] = newDirectory(msg, data, digest.SHA256)
		t.order = append(t.order, d)
	}
	return d, nil
}

// checkName refuses a name that is not one component of a path.
func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..":
		return fmt.Errorf("%w: the name %q", ErrPath, name)
	case strings.ContainsAny(name, "/\x00"), !utf8.ValidString(name):
		return fmt.Errorf("%w: the name %.200q", ErrPath, name)
	}
	return nil
}
