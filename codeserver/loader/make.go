package loader

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/merkle"
)

// maker makes a tree's directory. Of a file that the directory of another tree has at the same path it makes a link to
// that one's, where linkable allows it: of a source-only deploy the files that changed are written, and the others cost
// one link and one look each, in place of a verified copy and its sync.
//
// Links never lead to the store's own blobs: what a version writes over is shared with versions of its own location at
// most, whose next start notices it.
type maker struct {
	ctx  context.Context //nolint:containedctx // that of the call that makes the directory
	cas  cache.CAS
	tree *merkle.Tree
	sel  Selection
	dir  string

	old    map[string]merkle.Node // by path
	oldDir string

	written atomic.Int64
}

// linkable reports whether several versions may share a file. None is written to in place unless somebody changes its mode
// first, or is root, whom modes do not hold: of root's versions only Python sources are shared, which a program reads but
// does not open for writing, as it may a database that lies beside them.
func (m *maker) linkable(path string) bool {
	return m.sel.User != 0 || os.Geteuid() != 0 || strings.HasSuffix(path, ".py")
}

// takeFrom has make take files from the directory of another tree.
func (m *maker) takeFrom(old *merkle.Tree, dir string) {
	m.old, m.oldDir = map[string]merkle.Node{}, dir
	for n := range old.Nodes() {
		m.old[n.Path] = n
	}
}

// syncAllFrom is the number of written files from which on the whole file system is synced, in place of each file.
const syncAllFrom = 64

// make makes the directory, and none after an error. Directories are made first, then files, each anew, then symlinks:
// nothing is written through a symlink.
func (m *maker) make() (err error) {
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(m.dir)
		}
	}()
	m.written.Store(0)
	made := map[string]bool{"": true}
	g, ctx := errgroup.WithContext(m.ctx)
	g.SetLimit(4 * runtime.GOMAXPROCS(0))
	for n := range m.tree.Nodes() {
		files := m.selected(n)
		if len(files) == 0 {
			continue
		}
		if err = m.mkdirs(n.Path, made); err != nil {
			break
		}
		g.Go(func() error { return m.fill(ctx, n.Path, files) })
	}
	if werr := g.Wait(); err == nil {
		err = werr
	}
	if err != nil {
		return err
	}
	for path, target := range m.tree.Symlinks() {
		if !m.sel.Want(path) {
			continue
		}
		if err := m.mkdirs(parent(path), made); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(m.dir, path)); err != nil {
			return err
		}
	}
	if m.written.Load() >= syncAllFrom {
		return durable.SyncFS(m.dir)
	}
	return nil
}

// file is one that a directory is to have.
type file struct {
	name   string
	digest digest.Digest
}

func (m *maker) selected(n merkle.Node) []file {
	var files []file
	for name, d := range n.Files() {
		if m.sel.Want(under(n.Path, name)) {
			files = append(files, file{name, d})
		}
	}
	return files
}

// mkdirs makes a directory and those above it, unless they were made.
func (m *maker) mkdirs(path string, made map[string]bool) error {
	if made[path] {
		return nil
	}
	if err := m.mkdirs(parent(path), made); err != nil {
		return err
	}
	made[path] = true
	return os.Mkdir(filepath.Join(m.dir, path), 0o755)
}

// fill makes the files of one directory.
func (m *maker) fill(ctx context.Context, path string, files []file) error {
	rest := files
	if n, ok := m.old[path]; ok {
		var err error
		if rest, err = m.link(n, path, files); err != nil {
			return err
		}
	}
	for _, f := range rest {
		name := filepath.Join(m.dir, path, f.name)
		if err := merkle.WriteFile(ctx, m.cas, f.digest, name); err != nil {
			return err
		}
		if m.written.Add(1) >= syncAllFrom {
			continue
		}
		if err := syncFile(name); err != nil {
			return err
		}
	}
	return nil
}

// link links the files that the other tree has in the same place, and their bytecode. It returns those that are left to be
// written.
func (m *maker) link(n merkle.Node, path string, files []file) ([]file, error) {
	from, err := os.OpenFile(filepath.Join(m.oldDir, path), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return files, nil // it is not there, or was changed: all is written
	}
	defer from.Close()
	to, err := os.Open(filepath.Join(m.dir, path))
	if err != nil {
		return nil, err
	}
	defer to.Close()
	was := map[string]digest.Digest{}
	for name, d := range n.Files() {
		was[name] = d
	}
	var rest []file
	same := map[string]bool{} // modules
	for _, f := range files {
		if was[f.name] != f.digest {
			rest = append(rest, f)
			continue
		}
		if module, ok := strings.CutSuffix(f.name, ".py"); ok {
			same[module] = true
		}
		linked := false
		if m.linkable(f.name) {
			if linked, err = linkSame(from, to, f); err != nil {
				return nil, fmt.Errorf("link %s: %w", filepath.Join(path, f.name), err)
			}
		}
		if !linked {
			rest = append(rest, f)
		}
	}
	if len(same) > 0 {
		linkBytecode(filepath.Join(m.oldDir, path, bytecodeDir), filepath.Join(m.dir, path, bytecodeDir), same)
	}
	return rest, nil
}

// linkSame links one file, and reports whether it is what was written there once. It looks at the link and not at what it
// links, which could be replaced in between.
func linkSame(from, to *os.File, f file) (bool, error) {
	if unix.Linkat(int(from.Fd()), f.name, int(to.Fd()), f.name, 0) != nil {
		return false, nil // whatever the reason, the file can be written
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(to.Fd()), f.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o222 == 0 && st.Size == f.digest.Size() &&
		st.Mtim.Sec == merkle.ModTime.Unix() && st.Mtim.Nsec == 0 {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, unix.Unlinkat(int(to.Fd()), f.name, 0)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return &fs.PathError{Op: "fsync", Path: path, Err: err}
	}
	return nil
}

// parent returns the path of the directory that path is in, "" for the root.
func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ""
	}
	return path[:i]
}

func under(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
