package resolve

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/pexpress/pexpress/cache/lazy"
)

// pathKey finds the paths in a lock that uv has written. They stand at the beginning of an inline table: elsewhere the
// text would be inside of a string, where its quotes are escaped.
var pathKey = lazy.Regexp(`(\{ path = )("(?:[^"\\]|\\.)*")`)

// relocate makes the paths of a lock, which are relative to where uv has written it, relative to where it will be kept.
func relocate(content []byte, from, to string) ([]byte, error) {
	to, err := real(to)
	if err != nil {
		return nil, err
	}
	if from, err = real(from); err != nil {
		return nil, err
	}
	content = pathKey().ReplaceAllFunc(content, func(match []byte) []byte {
		m := pathKey().FindSubmatch(match)
		path, uerr := strconv.Unquote(string(m[2]))
		if uerr != nil {
			err = fmt.Errorf("uv has written the path %s, which cannot be read: %w", m[2], uerr)
			return match
		}
		if path = filepath.FromSlash(path); filepath.IsAbs(path) {
			return match
		}
		rel, rerr := filepath.Rel(to, filepath.Join(from, path))
		if rerr != nil {
			err = rerr
			return match
		}
		return append(m[1], strconv.Quote(filepath.ToSlash(rel))...)
	})
	return content, err
}

// real returns the absolute path of a directory without symlinks, as a process that runs in it sees it.
func real(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
