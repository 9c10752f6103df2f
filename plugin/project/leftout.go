package project

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	case strings.HasSuffix(name, ".pyc"), strings.HasSuffix(name, ".pyo"), strings.HasSuffix(name, ".egg-info"):
		return true
	case strings.HasPrefix(name, "pylock.") && strings.HasSuffix(name, ".toml"):
		return true
	case strings.HasSuffix(name, "~"), strings.HasPrefix(name, ".#"), strings.HasSuffix(name, ".swp"):
		return true
	}
	return false
}

// leftOutDir reports whether the directory called name, with these entries, is a virtual environment, or the output
// of a build: `build` or `dist` beside a project's own files that holds nothing but what build tools put there.
func leftOutDir(name string, entries []fs.DirEntry, besideProject bool) bool {
	for _, e := range entries {
		if e.Name() == "pyvenv.cfg" {
			return true
		}
	}
	var made []string
	switch {
	case !besideProject:
		return false
	case name == "build":
		made = []string{"lib", "lib.*", "temp.*", "bdist.*", "scripts-*"}
	case name == "dist":
		made = []string{"*.whl", "*.tar.gz", "*.tar.bz2", "*.zip", "*.egg", ".gitignore"}
	default:
		return false
	}
	for _, e := range entries {
		if !matchesAny(made, e.Name()) {
			return false
		}
	}
	return true
}

// hasProjectFile reports whether a directory with these entries is a Python project's.
func hasProjectFile(entries []fs.DirEntry) bool {
	for _, e := range entries {
		switch e.Name() {
		case "pyproject.toml", "setup.py", "setup.cfg":
			return true
		}
	}
	return false
}

// hashedRequirements reports whether a requirements file pins hashes, which makes it a lock file like the others.
func hashedRequirements(dir, name string) bool {
	if !strings.HasPrefix(name, "requirements") || !strings.HasSuffix(name, ".txt") {
		return false
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	return err == nil && bytes.Contains(b, []byte("--hash="))
}
