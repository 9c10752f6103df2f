// Package loader brings trees from a cache onto a host: digest in, verified directory out.
//
// The host keeps blobs in a store of its own, so that of a new version only what is new travels, and so that what was
// loaded once can be had again without the cache. A tree that was asked for is complete or an error; several askers for
// one tree share one load.
package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/singleflight"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/once"
)

// ErrCache is wrapped by errors that say that the cache could not be used. Loading again may help.
var ErrCache = errors.New("the cache cannot be used")

// Open opens the cache that trees come from. It is called when something is missing on the host, not before: what is
// here already is served without the cache.
type Open func(ctx context.Context) (cache.CAS, io.Closer, error)

// Loader loads trees. It is safe for concurrent use.
type Loader struct {
	local *disk.Store
	dir   string
	open  Open

	flight  singleflight.Group
	collect sync.RWMutex // held by loads for reading, by Keep for writing

	mu     sync.Mutex
	remote cache.CAS
	closer io.Closer
	trees  map[digest.Digest]*merkle.Tree // loaded and pinned by this process
	// dirs are their Directories, each with a tree that has it: most of a new version's are those of the last, and need
	// not be read or looked for again.
	dirs  map[digest.Digest]*merkle.Tree
	swept bool // nothing is in the store that is not pinned

	fetchedBlobs, fetchedBytes atomic.Int64
}

// Fetched is what came from the cache since l was made.
func (l *Loader) Fetched() Stats {
	return Stats{Blobs: l.fetchedBlobs.Load(), Bytes: l.fetchedBytes.Load()}
}

// Held is what the host has of its own. All of the store is looked at.
func (l *Loader) Held(ctx context.Context) (Stats, error) {
	st, err := l.local.Stats(ctx)
	return Stats{Blobs: st.Blobs, Bytes: st.Bytes}, err
}

// Stats says what came from the cache.
type Stats struct{ Blobs, Bytes int64 }

// New returns a Loader that keeps blobs and directories below dir.
func New(dir string, open Open) (*Loader, error) {
	local, err := disk.Open(filepath.Join(dir, "blobs"), disk.Options{})
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil {
		return nil, errors.Join(fmt.Errorf("remove what a killed process left: %w", err), local.Close())
	}
	for _, d := range []string{"trees", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, errors.Join(err, local.Close())
		}
	}
	return &Loader{
		local: local, dir: dir, open: open,
		trees: map[digest.Digest]*merkle.Tree{}, dirs: map[digest.Digest]*merkle.Tree{},
	}, nil
}

// Close ends the connection to the cache.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.local.Close()
	if l.closer != nil {
		err = errors.Join(err, l.closer.Close())
	}
	return err
}

// CAS returns what the host has, and what it gets from the cache when a copy of its own was lost.
func (l *Loader) CAS() cache.CAS { return &counting{loader: l} }

// Load makes sure that the host has all of the tree, and pins it until Keep is called without it.
func (l *Loader) Load(ctx context.Context, root digest.Digest) (*merkle.Tree, Stats, error) {
	type loaded struct {
		tree  *merkle.Tree
		stats Stats
	}
	v, err := once.Do(ctx, &l.flight, root.String(), func() (loaded, error) {
		l.collect.RLock()
		defer l.collect.RUnlock()
		t, st, err := l.load(ctx, root)
		return loaded{t, st}, err
	})
	if err != nil {
		return nil, Stats{}, fmt.Errorf("load tree %s: %w", root, err)
	}
	return v.tree, v.stats, nil
}

func (l *Loader) load(ctx context.Context, root digest.Digest) (_ *merkle.Tree, _ Stats, err error) {
	c := &counting{loader: l, held: map[digest.Digest][]byte{}}
	tree := l.tree(root)
	// Of a tree that was loaded before all is looked for: something was found to be missing.
	known := func(digest.Digest) bool { return false }
	if tree == nil {
		defer func() {
			if err != nil {
				l.setSwept(false) // what came before the failure may be of no tree that is pinned
			}
		}()
		err := Heal(func() (err error) {
			tree, err = merkle.LoadKnown(ctx, holding{c}, root, l.known)
			return err
		})
		if err != nil {
			return nil, Stats{}, err
		}
		if err := l.local.Pin(ctx, pinName(root), tree.Beyond(known)); err != nil {
			return nil, Stats{}, err
		}
		known = func(d digest.Digest) bool { return l.known(d) != nil }
	}
	missing, err := l.local.FindMissing(ctx, tree.Beyond(known))
	if err != nil {
		return nil, Stats{}, err
	}
	if err := c.fetchAll(ctx, missing); err != nil {
		return nil, Stats{}, fmt.Errorf("%s: %w", named(tree, missing), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trees[root] = tree
	for d := range tree.Blobs() {
		if l.dirs[d] == nil {
			l.dirs[d] = tree
		}
	}
	return tree, Stats{c.blobs.Load(), c.bytes.Load()}, nil
}

// named says which files of a tree blobs are, for people.
func named(t *merkle.Tree, blobs []digest.Digest) string {
	for p, d := range t.Files() {
		if !slices.Contains(blobs, d) {
			continue
		}
		if len(blobs) > 1 {
			return fmt.Sprintf("%s and %d more, which are not on this host", p, len(blobs)-1)
		}
		return p + ", which is not on this host"
	}
	return "what is not on this host"
}

// tree returns a tree that was loaded, nil if it was not.
func (l *Loader) tree(root digest.Digest) *merkle.Tree {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trees[root]
}

// known returns a tree with a Directory, nil if no loaded one has it. What such a Directory names has been found, and is
// pinned.
func (l *Loader) known(d digest.Digest) *merkle.Tree {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirs[d]
}

func pinName(root digest.Digest) string { return "tree-" + root.Hash() }

// Heal calls f again while it fails because a copy on this host turned out to be corrupt: the store has set that aside,
// so that the next call finds it missing and gets it from the cache.
func Heal(f func() error) error {
	var err error
	for range 8 {
		if err = f(); !errors.Is(err, digest.ErrMismatch) || errors.Is(err, ErrCache) {
			return err
		}
	}
	return err
}

// ErrNoFile is wrapped by Read's error for a path that is not in the tree.
var ErrNoFile = errors.New("no such file in the tree")

// Read returns one file of a loaded tree, which must not be larger than limit.
func (l *Loader) Read(ctx context.Context, t *merkle.Tree, path string, limit int64) ([]byte, error) {
	for p, d := range t.Files() {
		if p != path {
			continue
		}
		var buf bytes.Buffer
		err := Heal(func() error {
			buf.Reset()
			rc, err := l.CAS().Get(ctx, d)
			if err != nil {
				return err
			}
			defer rc.Close()
			_, err = buf.ReadFrom(io.LimitReader(rc, limit+1))
			return err
		})
		if err == nil && int64(buf.Len()) > limit {
			err = fmt.Errorf("%s is larger than %d bytes", path, limit)
		}
		return buf.Bytes(), err
	}
	return nil, fmt.Errorf("tree %s has no %s: %w", t.Root(), path, ErrNoFile)
}
