package merkle

import (
	"bytes"
	"context"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Load reads the tree below the Directory root and checks all that it says. A Directory that is missing is
// cache.ErrNotFound.
func Load(ctx context.Context, cas cache.CAS, root digest.Digest) (*Tree, error) {
	return LoadKnown(ctx, cas, root, nil)
}

// LoadKnown is Load, but takes a Directory over from the tree that known returns, which has been checked: most of a tree's
// Directories are those of the one before. known returns nil for a Directory that is to be read, and may be nil itself.
func LoadKnown(ctx context.Context, cas cache.CAS, root digest.Digest, known func(digest.Digest) *Tree) (*Tree, error) {
	// All at once or level by level, where each question takes its time.
	early := map[digest.Digest]message{}
	if t, ok := cas.(cache.TreeGetter); ok && known == nil {
		early = readTree(ctx, t, root)
	}
	if _, ok := cas.(cache.BatchGetter); ok && len(early) == 0 {
		var err error
		if early, err = readLevels(ctx, cas, root, known); err != nil {
			return nil, fmt.Errorf("tree %s: %w", root, err)
		}
	}
	return load(root, known, func(d digest.Digest) (message, error) {
		if m, ok := early[d]; ok {
			return m, nil
		}
		data, err := cache.ReadBlob(ctx, cas, d, cache.MaxMessage)
		return message{data: data}, err
	})
}

// message is a Directory that has been read.
type message struct {
	data []byte
	msg  *repb.Directory // what data says, nil if that has not been looked at
}

// maxEarly bounds the Directories that are read before they are checked; others are read one by one.
const maxEarly = 64 << 20

// readTree reads what it can of a tree's Directories: not every cache answers, and what is left out is read later.
func readTree(ctx context.Context, cas cache.TreeGetter, root digest.Digest) map[digest.Digest]message {
	early := map[digest.Digest]message{}
	left := maxEarly
	_ = cas.GetTree(ctx, root, func(dir *repb.Directory) error {
		data, _, err := digest.Marshal(dir)
		if left -= len(data); err == nil && left < 0 {
			err = ErrTooLarge
		}
		if err == nil {
			early[root.Function().FromBytes(data)] = message{data, dir}
		}
		return err
	})
	return early
}

// readLevels reads the Directories of a tree that are not known, those of a level at once. What cannot be read, or is no
// Directory, is left out.
func readLevels(ctx context.Context, cas cache.CAS, root digest.Digest, known func(digest.Digest) *Tree) (map[digest.Digest]message, error) {
	early, asked := map[digest.Digest]message{}, map[digest.Digest]bool{}
	left := int64(maxEarly)
	for level, depth := []digest.Digest{root}, 0; len(level) > 0 && depth <= maxDepth; depth++ {
		var ask, next []digest.Digest
		for _, d := range level {
			if asked[d] || known != nil && known(d) != nil || d.Size() > left {
				continue
			}
			asked[d] = true
			ask, left = append(ask, d), left-d.Size()
		}
		err := cache.GetAll(ctx, cas, ask, cache.MaxMessage, func(i int, data []byte, err error) {
			if err != nil {
				return
			}
			data = bytes.Clone(data)
			if dir, err := ParseDirectory(ask[i], data); err == nil {
				early[ask[i]] = message{data: data}
				next = append(next, dir.Directories...)
			}
		})
		if err != nil {
			return nil, err
		}
		level = next
	}
	return early, nil
}

// FromProto returns the tree of a REAPI Tree message, checked.
func FromProto(p *repb.Tree) (*Tree, error) {
	blobs := map[digest.Digest]message{}
	var root digest.Digest
	for i, msg := range append([]*repb.Directory{p.GetRoot()}, p.GetChildren()...) {
		data, d, err := digest.Marshal(msg)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			root = d
		}
		blobs[d] = message{data, msg}
	}
	return load(root, nil, func(d digest.Digest) (message, error) {
		b, ok := blobs[d]
		if !ok {
			return message{}, cache.NotFound("Directory of a Tree", d)
		}
		return b, nil
	})
}

// loader reads Directories depth first, each once.
type loader struct {
	tree   *Tree
	known  func(digest.Digest) *Tree
	read   func(digest.Digest) (message, error)
	weight map[digest.Digest]int // entries below a Directory, shared ones counted as often as they stand there
	height map[digest.Digest]int // Directories below each other in a Directory, itself not counted
}

func load(root digest.Digest, known func(digest.Digest) *Tree, read func(digest.Digest) (message, error)) (*Tree, error) {
	l := &loader{
		tree: &Tree{root: root, dirs: map[digest.Digest]*directory{}}, known: known, read: read,
		weight: map[digest.Digest]int{}, height: map[digest.Digest]int{},
	}
	if err := l.load(root, 0); err != nil {
		return nil, fmt.Errorf("tree %s: %w", root, err)
	}
	return l.tree, l.tree.checkLinks()
}

func (l *loader) load(d digest.Digest, depth int) error {
	// A Directory that is known already is not walked again, but may stand deeper here than where it was first seen.
	if depth+l.height[d] > maxDepth {
		return fmt.Errorf("%w: more than %d directories deep", ErrPath, maxDepth)
	}
	if _, ok := l.tree.dirs[d]; ok {
		return nil
	}
	dir, err := l.directory(d)
	if err != nil {
		return err
	}
	n := len(dir.files) + len(dir.msg.GetSymlinks())
	for _, cd := range dir.dirs {
		if err := l.load(cd, depth+1); err != nil {
			return err
		}
		l.height[d] = max(l.height[d], 1+l.height[cd])
		if n += 1 + l.weight[cd]; n > maxEntries {
			return fmt.Errorf("%w: more than %d entries", ErrPath, maxEntries)
		}
	}
	l.weight[d] = n
	l.tree.dirs[d] = dir
	l.tree.order = append(l.tree.order, d)
	return nil
}

// directory returns a Directory that is known, or reads and checks it.
func (l *loader) directory(d digest.Digest) (*directory, error) {
	if l.known != nil {
		if t := l.known(d); t != nil && t.dirs[d] != nil {
			return t.dirs[d], nil
		}
	}
	m, err := l.read(d)
	if err != nil {
		return nil, fmt.Errorf("Directory %s: %w", d, err)
	}
	if m.msg == nil {
		m.msg = &repb.Directory{}
		if err := proto.Unmarshal(m.data, m.msg); err != nil {
			return nil, fmt.Errorf("blob %s is not a Directory: %w", d, err)
		}
	}
	if err := checkDirectory(m.msg, d.Function()); err != nil {
		return nil, fmt.Errorf("Directory %s: %w", d, err)
	}
	return newDirectory(m.msg, m.data, d.Function()), nil
}

// checkDirectory checks names, their order and their digests.
func checkDirectory(msg *repb.Directory, fn digest.Function) error {
	seen := make(map[string]bool, len(msg.GetFiles())+len(msg.GetDirectories())+len(msg.GetSymlinks()))
	last := ""
	check := func(name string, first bool) error {
		if err := checkName(name); err != nil {
			return err
		}
		if seen[name] || (!first && name <= last) {
			return fmt.Errorf("%w: %q is out of order or stands there twice", ErrPath, name)
		}
		seen[name], last = true, name
		return nil
	}
	for i, f := range msg.GetFiles() {
		if err := check(f.GetName(), i == 0); err != nil {
			return err
		}
		if _, err := fn.FromProto(f.GetDigest()); err != nil {
			return err
		}
	}
	for i, c := range msg.GetDirectories() {
		if err := check(c.GetName(), i == 0); err != nil {
			return err
		}
		if _, err := fn.FromProto(c.GetDigest()); err != nil {
			return err
		}
	}
	for i, s := range msg.GetSymlinks() {
		if err := check(s.GetName(), i == 0); err != nil {
			return err
		}
		// The rest of checkLink needs the whole tree. A walk takes what has no target for a file.
		if s.GetTarget() == "" {
			return fmt.Errorf("%w: symlink %q has no target", ErrPath, s.GetName())
		}
	}
	return nil
}
