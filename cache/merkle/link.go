package merkle

import (
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"
)

// checkLink refuses a symlink whose target, read from where it stands, is absolute or leaves the tree.
func checkLink(path, target string) error {
	if target == "" || strings.HasPrefix(target, "/") || strings.ContainsRune(target, 0) || !utf8.ValidString(target) {
		return fmt.Errorf("%w: symlink %q to %.200q: targets are relative", ErrPath, path, target)
	}
	depth := strings.Count(path, "/")
	for _, part := range strings.Split(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return fmt.Errorf("%w: symlink %q to %.200q leaves the tree", ErrPath, path, target)
			}
		default:
			depth++
		}
	}
	return nil
}

// checkLinks checks that every symlink stays inside the tree, also by way of other symlinks.
//
// What checkLink counts is right as long as no ".." follows the name of a symlink, because the kernel goes up from
// where that symlink leads: with a/b/up -> ../.. the target a/b/up/../.. looks like a and lies outside. Without such a
// step each symlink leads into the tree if those on its way do.
func (t *Tree) checkLinks() error {
	if !t.hasLinks() {
		return nil
	}
	links := maps.Collect(t.Symlinks())
	for path, target := range links {
		if err := checkLink(path, target); err != nil {
			return err
		}
	}
	for path, target := range links {
		if via := upFrom(links, path, target); via != "" {
			return fmt.Errorf("%w: symlink %q to %.200q goes up from %q, which is a symlink itself", ErrPath, path, target, via)
		}
	}
	return nil
}

// hasLinks spares a tree without symlinks, which most are, a walk.
func (t *Tree) hasLinks() bool {
	for _, dir := range t.dirs {
		if len(dir.msg.GetSymlinks()) > 0 {
			return true
		}
	}
	return false
}

// upFrom returns the symlink from which a target goes up, "" for none.
func upFrom(links map[string]string, path, target string) string {
	at := strings.Split(path, "/")
	at = at[:len(at)-1]
	for _, part := range strings.Split(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if here := strings.Join(at, "/"); links[here] != "" {
				return here
			}
			at = at[:len(at)-1]
		default:
			at = append(at, part)
		}
	}
	return ""
}
