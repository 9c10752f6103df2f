package pex

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// Layouts are those that Export knows.
var Layouts = []string{"zipapp", "packed", "loose"}

// Trees are the two PEXes of a build, by their root Directories.
type Trees struct{ Deps, Source digest.Digest }

// Export writes the PEXes to out, which must not exist. Layout zipapp makes one file that holds both; packed and loose
// make a directory with deps.pex and source.pex, in loose with the bootstrap unzipped. The same trees give the same
// bytes. When Export fails, out does not exist.
func Export(ctx context.Context, cas cache.CAS, t Trees, layout, out string) error {
	deps, err := merkle.Load(ctx, cas, t.Deps)
	if err != nil {
		return err
	}
	source, err := merkle.Load(ctx, cas, t.Source)
	if err != nil {
		return err
	}
	switch layout {
	case "zipapp":
		return exportZipapp(ctx, cas, deps, source, out)
	case "packed":
		return exportDirs(ctx, cas, deps, source, out)
	case "loose":
		if deps, err = unpackBootstrap(deps, source); err != nil {
			return err
		}
		return exportDirs(ctx, cas, deps, source, out)
	}
	return fmt.Errorf("no layout %q; there are %q", layout, Layouts)
}

// exportDirs writes both trees below out, complete or not at all.
func exportDirs(ctx context.Context, cas cache.CAS, deps, source *merkle.Tree, out string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(out), "."+filepath.Base(out)+".*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := merkle.Materialize(ctx, cas, deps, filepath.Join(tmp, "deps.pex")); err != nil {
		return err
	}
	if _, err := merkle.Materialize(ctx, cas, source, filepath.Join(tmp, "source.pex")); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, out)
}

// unpackBootstrap returns deps.pex with the bootstrap as a directory, which source.pex has already.
func unpackBootstrap(deps, source *merkle.Tree) (*merkle.Tree, error) {
	var b merkle.Builder
	for path, d := range deps.Files() {
		if path == bootstrapDir {
			continue
		}
		if err := b.File(path, d); err != nil {
			return nil, err
		}
	}
	for path, target := range deps.Symlinks() {
		if err := b.Symlink(path, target); err != nil {
			return nil, err
		}
	}
	for path, d := range source.Files() {
		if !strings.HasPrefix(path, bootstrapDir+"/") {
			continue
		}
		if err := b.File(path, d); err != nil {
			return nil, err
		}
	}
	return b.Build()
}

// readInfoOf reads the PEX-INFO of a tree.
func readInfoOf(ctx context.Context, cas cache.CAS, t *merkle.Tree) (*Info, error) {
	b, err := readFile(ctx, cas, t, infoFile)
	if err != nil {
		return nil, err
	}
	var i Info
	if err := json.Unmarshal(b, &i); err != nil {
		return nil, fmt.Errorf("%s of tree %s: %w", infoFile, t.Root(), err)
	}
	return &i, nil
}

func readFile(ctx context.Context, cas cache.CAS, t *merkle.Tree, path string) ([]byte, error) {
	for p, d := range t.Files() {
		if p == path {
			return cache.ReadBlob(ctx, cas, d, maxBootstrap)
		}
	}
	return nil, fmt.Errorf("tree %s has no %s: it is not a PEX", t.Root(), path)
}
