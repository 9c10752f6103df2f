// Package lock reads pylock.toml (PEP 751) and selects from it the wheels for one target.
//
// It does what PEP 751 asks of an installer that installs wheels only: environment markers (PEP 508) with the lock's
// extras and dependency groups, requires-python (PEP 440), and the best wheel by its tags (PEP 425, 600, 656). It
// installs nothing and touches neither files nor the network.
package lock

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/pexpress/pexpress/cache/lazy"
)

// ErrLock is wrapped by every error about what a lock says.
var ErrLock = errors.New("lock cannot be used")

// Lock is a parsed pylock.toml.
type Lock struct{ doc document }

// document mirrors the file: what of it matters here.
type document struct {
	LockVersion    string   `toml:"lock-version"`
	Environments   []string `toml:"environments"`
	RequiresPython string   `toml:"requires-python"`
	Extras         []string `toml:"extras"`
	Groups         []string `toml:"dependency-groups"`
	DefaultGroups  []string `toml:"default-groups"`
	Packages       []*pkg   `toml:"packages"`
}

type pkg struct {
	Name           string         `toml:"name"`
	Version        string         `toml:"version"`
	Marker         string         `toml:"marker"`
	RequiresPython string         `toml:"requires-python"`
	VCS            map[string]any `toml:"vcs"`
	Directory      *directory     `toml:"directory"`
	Archive        *file          `toml:"archive"`
	Sdist          *file          `toml:"sdist"`
	Wheels         []file         `toml:"wheels"`
}

type directory struct {
	Path string `toml:"path"`
}

type file struct {
	Name   string            `toml:"name"`
	URL    string            `toml:"url"`
	Path   string            `toml:"path"`
	Size   int64             `toml:"size"`
	Hashes map[string]string `toml:"hashes"`
}

// filename returns the file's name: the given one, else the last part of where it is.
func (f *file) filename() string {
	if f.Name != "" {
		return f.Name
	}
	if f.Path != "" {
		return path.Base(strings.ReplaceAll(f.Path, `\`, "/"))
	}
	u, _, _ := strings.Cut(f.URL, "#")
	u, _, _ = strings.Cut(u, "?")
	return unescape(path.Base(u))
}

// Parse reads a lock.
func Parse(b []byte) (*Lock, error) {
	l := &Lock{}
	if err := toml.Unmarshal(b, &l.doc); err != nil {
		var decode *toml.DecodeError
		if errors.As(err, &decode) {
			row, col := decode.Position()
			return nil, fmt.Errorf("%w: line %d, column %d: %w", ErrLock, row, col, err)
		}
		return nil, fmt.Errorf("%w: %w", ErrLock, err)
	}
	if l.doc.LockVersion == "" {
		return nil, fmt.Errorf("%w: it has no lock-version: is it a pylock.toml (PEP 751)?", ErrLock)
	}
	if major, _, _ := strings.Cut(l.doc.LockVersion, "."); major != "1" {
		return nil, fmt.Errorf("%w: its lock-version is %.20q; versions 1.x are supported", ErrLock, l.doc.LockVersion)
	}
	for i, p := range l.doc.Packages {
		if p == nil || p.Name == "" {
			return nil, fmt.Errorf("%w: package %d has no name", ErrLock, i+1)
		}
		p.Name = NormalizeName(p.Name)
	}
	return l, nil
}

// Len returns the number of packages.
func (l *Lock) Len() int { return len(l.doc.Packages) }

// RequiresPython returns the lock's requires-python, "" if it has none.
func (l *Lock) RequiresPython() string { return l.doc.RequiresPython }

// DefaultPython returns the oldest version, such as "3.11", that requires-python admits; "" if it has none.
func (l *Lock) DefaultPython() string {
	if l.doc.RequiresPython == "" {
		return ""
	}
	for minor := 6; minor < 100; minor++ {
		t := Target{Python: fmt.Sprintf("3.%d", minor)}
		if ok, err := t.admittedBy(l.doc.RequiresPython); err == nil && ok {
			return t.Python
		}
	}
	return ""
}

var separators = lazy.Regexp(`[-_.]+`)

// NormalizeName returns a project's name as PEP 503 normalizes it.
func NormalizeName(name string) string {
	return strings.ToLower(separators().ReplaceAllString(name, "-"))
}
