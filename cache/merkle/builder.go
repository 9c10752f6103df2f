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

// entry is one node of the tree that is being built: exactly one of its fields is set, but for an empty directory.
type entry struct {
	digest   digest.Digest
	link     string
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

// Graft puts all of sub below path; "" merges it into the root.
func (b *Builder) Graft(path string, sub *Tree) error {
	prefix := ""
	if path != "" {
		prefix = path + "/"
	}
	for p, d := range sub.Files() {
		if err := b.File(prefix+p, d); err != nil {
			return err
		}
	}
	for p, target := range sub.Symlinks() {
		if err := b.Symlink(prefix+p, target); err != nil {
			return err
		}
	}
	return nil
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
			next = &entry{}
			at.children[name] = next
		case !next.digest.IsZero() || next.link != "":
			return fmt.Errorf("%w: %q is not a directory, but %q lies below it", ErrPath, strings.Join(names[:i+1], "/"), path)
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

// addMessage adds a Directory whose children are there already.
func (t *Tree) addMessage(msg *repb.Directory) (digest.Digest, error) {
	data, d, err := digest.Marshal(msg)
	if err != nil {
		return d, err
	}
	if _, ok := t.dirs[d]; !ok {
		t.dirs[d] = &directory{msg, data}
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
