package project

import (
	"bytes"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/durable"
)

// neverName reports whether the entry belongs to version control, which no setting can bring into source.pex.
func neverName(name string) bool {
	switch name {
	case ".git", ".hg", ".svn", ".jj", ".bzr":
		return true
	}
	return false
}

// leftOutName reports whether the entry is a cache, bytecode, an installed environment's remains or an editor's
// temporary file, which only `include` brings into source.pex. Lock files are here because deps.pex is what they
// say: with the lock inside, every bump of a wheel would change source.pex as well.
func leftOutName(name string) bool {
	switch name {
	case "__pycache__", "node_modules", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis",
		".ipynb_checkpoints", ".eggs", ".pexpress", ".DS_Store",
		"pylock.toml", "uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock":
		return true
	}
	switch {
	case strings.HasSuffix(name, ".pyc"), strings.HasSuffix(name, ".pyo"), strings.HasSuffix(name, ".egg-info"),
		strings.HasSuffix(name, ".pex"):
		return true
	case strings.HasPrefix(name, "pylock.") && strings.HasSuffix(name, ".toml"):
		return true
	case strings.HasSuffix(name, "~"), strings.HasPrefix(name, ".#"), strings.HasSuffix(name, ".swp"):
		return true
	}
	return false
}

// isDisposable reports whether a directory with these entries is a virtual environment, or a cache that says so with a
// CACHEDIR.TAG, as those of pexpress, pytest, ruff and mypy do: tools make them again, and no project means them.
func isDisposable(entries []fs.DirEntry) bool {
	return has(entries, "pyvenv.cfg") || has(entries, "CACHEDIR.TAG")
}

// buildOutput returns the patterns of what build tools leave in a directory of this name and with these entries, which
// lies beside a project's own files; none if it is not such a directory, or is a package.
func buildOutput(name string, entries []fs.DirEntry) []string {
	switch {
	case name == "build" && !has(entries, "__init__.py"):
		return []string{"lib", "lib.*", "temp.*", "bdist.*", "scripts-*"}
	case name == "dist" && !has(entries, "__init__.py"):
		return []string{"*.whl", "*.tar.gz", "*.tar.bz2", "*.zip", "*.egg"}
	}
	return nil
}

// has reports whether sorted entries have one of that name.
func has(entries []fs.DirEntry, name string) bool {
	_, ok := find(entries, name)
	return ok
}

func find(entries []fs.DirEntry, name string) (int, bool) {
	return slices.BinarySearchFunc(entries, name, func(e fs.DirEntry, name string) int { return strings.Compare(e.Name(), name) })
}

// hasProjectFile reports whether a directory with these entries is a Python project's.
func hasProjectFile(entries []fs.DirEntry) bool {
	return has(entries, "pyproject.toml") || has(entries, "setup.py") || has(entries, "setup.cfg")
}

// hashedRequirements reports whether a requirements file pins hashes, which makes it a lock file like the others.
func hashedRequirements(dir, name string) bool {
	if !strings.HasPrefix(name, "requirements") || !strings.HasSuffix(name, ".txt") {
		return false
	}
	b, err := durable.ReadFile(filepath.Join(dir, name))
	return err == nil && bytes.Contains(b, []byte("--hash="))
}
