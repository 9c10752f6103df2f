package build

import (
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// Change is one file that differs between two trees.
type Change struct {
	Path string `json:"path"`
	// Kind is "added", "removed" or "changed".
	Kind string `json:"kind"`
	// Size is the new file's size in bytes, 0 when it was removed.
	Size int64 `json:"size"`
}

// Diff returns the files in which after differs from before, sorted by path. A nil tree is an empty one.
func Diff(before, after *merkle.Tree) []Change {
	old := map[string]digest.Digest{}
	if before != nil {
		for path, d := range before.Files() {
			old[path] = d
		}
	}
	var changes []Change
	if after != nil {
		for path, d := range after.Files() {
			was, ok := old[path]
			delete(old, path)
			switch {
			case !ok:
				changes = append(changes, Change{path, "added", d.Size()})
			case was != d:
				changes = append(changes, Change{path, "changed", d.Size()})
			}
		}
	}
	for path := range old {
		changes = append(changes, Change{Path: path, Kind: "removed"})
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return changes
}

// NewDirectories counts the Directories of after that before lacks, and their bytes.
func NewDirectories(before, after *merkle.Tree) (n int, size int64) {
	have := map[digest.Digest]bool{}
	if before != nil {
		for d := range before.Blobs() {
			have[d] = true
		}
	}
	for d := range after.Blobs() {
		if !have[d] {
			n++
			size += d.Size()
		}
	}
	return n, size
}
