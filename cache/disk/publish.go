package disk

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// staged is a whole and synced temporary file that is to get its name.
type staged struct {
	temp string
	name name
	size int64
}

// workers is how many system calls on files are kept under way: even with few processors, several that wait for the
// disk are done sooner than one after the other.
const workers = 8

// stage writes r to a temporary file. When it fails it leaves none behind.
func (s *Store) stage(n name, r io.Reader, sync bool) (st staged, err error) {
	f, err := s.temp()
	if err != nil {
		return staged{}, err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	size, err := io.Copy(f, r)
	if err == nil && sync {
		err = f.Sync()
	}
	return staged{temp: f.Name(), name: n, size: size}, err
}

// publish gives every staged file its name and then makes that durable. It evicts when that exceeds the limit.
func (s *Store) publish(ctx context.Context, files []staged, sync func(dirs map[string]bool) error) error {
	dirs := make(map[string]bool)
	err := s.withLedger(ctx, func(l *ledger) error {
		for _, f := range files {
			if err := l.place(f, dirs); err != nil {
				return err
			}
		}
		return l.evictIfFull(ctx, files)
	})
	if err != nil {
		return err
	}
	return sync(dirs)
}

// place renames one staged file. A blob that someone else was quicker to store is left alone; a truncated one and an
// older ActionResult are replaced. The directories that are to be synced are added to dirs.
func (l *ledger) place(f staged, dirs map[string]bool) error {
	dir := f.name.dir(l.store)
	path := dir + "/" + f.name.file()
	dirs[dir] = true
	old, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case f.name.area == blobs && old.Size() == f.size:
		return os.Remove(f.temp)
	}
	err = os.Rename(f.temp, path)
	if errors.Is(err, fs.ErrNotExist) {
		// The first with these two digits: to make all 512 directories beforehand takes a sixth of a second.
		dirs[filepath.Dir(dir)] = true
		if err = os.Mkdir(dir, 0o755); err == nil {
			err = os.Rename(f.temp, path)
		}
	}
	if err != nil {
		return err
	}
	l.Bytes += f.size
	if old == nil {
		l.Files++
	} else {
		l.Bytes -= old.Size()
	}
	return nil
}

// writeFile replaces a file of the store other than blobs and ActionResults.
func (s *Store) writeFile(path string, b []byte) error {
	f, err := s.temp()
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDirs makes the names in every one of dirs durable.
func syncDirs(dirs map[string]bool) error {
	var g errgroup.Group
	g.SetLimit(workers)
	for dir := range dirs {
		g.Go(func() error { return syncDir(dir) })
	}
	return g.Wait()
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
