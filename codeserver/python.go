package codeserver

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/venv"
)

// interpreters remembers those of this host: to find one is to run it, which would be most of what a deploy takes.
type interpreters struct {
	mu    sync.Mutex
	found map[string]foundPython // by version
}

// foundPython is an interpreter and its file as it was asked.
type foundPython struct {
	*venv.Interpreter
	file fileID
}

// fileID changes when something else is installed at a path.
type fileID struct {
	dev, inode uint64
	size       int64
	modified   time.Time
}

func identify(path string) (fileID, error) {
	st, err := os.Stat(path)
	if err != nil {
		return fileID{}, err
	}
	var sys unix.Stat_t
	if err := unix.Stat(path, &sys); err != nil {
		return fileID{}, err
	}
	return fileID{sys.Dev, sys.Ino, st.Size(), st.ModTime()}, nil
}

// find returns the interpreter of a version such as 3.11.
func (i *interpreters) find(ctx context.Context, version string) (*venv.Interpreter, error) {
	i.mu.Lock()
	known, ok := i.found[version]
	i.mu.Unlock()
	if ok {
		if id, err := identify(known.Path); err == nil && id == known.file {
			return known.Interpreter, nil
		}
	}
	py, err := venv.Find(ctx, version)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	id, err := identify(py.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.found == nil {
		i.found = map[string]foundPython{}
	}
	i.found[version] = foundPython{py, id}
	return py, nil
}
