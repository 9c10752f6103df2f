package project

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// resolveLinks reads the symlinks that a walk of base found and checks that each stays inside: its target is relative,
// exists, and lies below base, also after following every link on the way. It adds the targets to links.
func resolveLinks(base, prefix string, f *found, links map[string]string) error {
	if len(f.links) == 0 {
		return nil
	}
	realBase, err := filepath.EvalSymlinks(base)
	if err != nil {
		return err
	}
	var errs []error
	for _, treePath := range f.links {
		sub := strings.TrimPrefix(treePath, prefix)
		target, real, err := resolveLink(realBase, sub)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !holds(f.files, prefix+real):
			f.warnings = append(f.warnings, fmt.Sprintf("%s is left out: it points to %s, which is left out", treePath, target))
		default:
			links[treePath] = target
		}
	}
	return errors.Join(errs...)
}

// resolveLink returns the link's text and the path below base of what it names in the end.
func resolveLink(base, sub string) (target, real string, err error) {
	abs := filepath.Join(base, filepath.FromSlash(sub))
	if target, err = os.Readlink(abs); err != nil {
		return "", "", err
	}
	if filepath.IsAbs(target) {
		if rel, err := filepath.Rel(filepath.Dir(abs), target); err == nil && strings.HasPrefix(target, base+"/") {
			return "", "", fmt.Errorf("symlink %s has the absolute target %s; make it relative: ln -sfn %s %s", sub, target, rel, sub)
		}
		return "", "", fmt.Errorf("symlink %s points out of the project, to %s; replace it by what it names, or exclude it", sub, target)
	}
	outside := fmt.Errorf("symlink %s points out of the project, to %s; "+
		"make what it names a path dependency, replace the link by it, or exclude it", sub, target)
	if lexical := path.Join(path.Dir(sub), target); lexical == ".." || strings.HasPrefix(lexical, "../") {
		return "", "", outside
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", "", fmt.Errorf("symlink %s points to %s, which does not exist; remove it, or exclude it", sub, target)
	}
	rel, err := filepath.Rel(base, resolved)
	if err != nil || !filepath.IsLocal(rel) {
		return "", "", outside
	}
	return target, filepath.ToSlash(rel), nil
}

// holds reports whether the sorted files contain p, or something below it.
func holds(files []SourceFile, p string) bool {
	if p = path.Clean(p); p == "." {
		return true
	}
	byPath := func(f SourceFile, p string) int { return strings.Compare(f.Path, p) }
	if _, ok := slices.BinarySearchFunc(files, p, byPath); ok {
		return true
	}
	i, _ := slices.BinarySearchFunc(files, p+"/", byPath)
	return i < len(files) && strings.HasPrefix(files[i].Path, p+"/")
}
