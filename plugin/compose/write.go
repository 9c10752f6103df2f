package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache/digest"
)

// Write writes the tree to dir, which must not exist, or be empty as build tools prepare it. Every file is 0755 whatever
// the umask, every byte verified. After an error nothing is left in dir. Unlike merkle.Materialize it does not wait for
// the disk: the build tool can make the directory again.
func (o *Output) Write(ctx context.Context, dir string) error {
	if err := emptyDir(dir); err != nil {
		return err
	}
	if err := o.write(ctx, dir); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

// WriteBlobs writes the content of each of the tree's files to dir, named by its hash, and no symlink. A build tool keeps
// it to have the contents in its cache: Bazel 4.2.3 takes no result from a cache without fetching it, if it is a
// directory that has symlinks in it.
func (o *Output) WriteBlobs(ctx context.Context, dir string) error {
	if err := emptyDir(dir); err != nil {
		return err
	}
	seen := map[digest.Digest]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	for _, d := range o.Tree.Files() {
		if !seen[d] {
			seen[d] = true
			g.Go(func() error { return o.writeFile(gctx, d, filepath.Join(dir, d.Hash())) })
		}
	}
	if err := g.Wait(); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

// emptyDir makes dir, or makes sure that there is nothing in it.
func emptyDir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, os.ErrExist) {
		var entries []os.DirEntry
		if entries, err = os.ReadDir(dir); err == nil && len(entries) > 0 {
			return fmt.Errorf("%w: %s is not empty: remove it, or choose another --out", ErrInput, dir)
		}
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

func (o *Output) write(ctx context.Context, dir string) error {
	made := map[string]bool{".": true}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	var failed error
	for name, d := range o.Tree.Files() {
		if failed = mkdirs(dir, filepath.Dir(name), made); failed != nil {
			break
		}
		g.Go(func() error { return o.writeFile(gctx, d, filepath.Join(dir, name)) })
	}
	if err := errors.Join(failed, g.Wait()); err != nil {
		return err
	}
	for name, target := range o.Tree.Symlinks() {
		if err := mkdirs(dir, filepath.Dir(name), made); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// mkdirs makes a directory of the tree and those above it.
func mkdirs(dir, name string, made map[string]bool) error {
	if made[name] {
		return nil
	}
	if err := mkdirs(dir, filepath.Dir(name), made); err != nil {
		return err
	}
	made[name] = true
	path := filepath.Join(dir, name)
	return errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, 0o755))
}

func (o *Output) writeFile(ctx context.Context, d digest.Digest, path string) error {
	r, err := o.cas.Get(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Chmod(0o755), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
