package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/plugin/fetch"
	"github.com/pexpress/pexpress/plugin/lock"
)

// selectedWheel is a wheel as `lock select` writes it.
type selectedWheel struct {
	Name     string `json:"name,omitempty"`
	Version  string `json:"version,omitempty"`
	Filename string `json:"filename"`
	URL      string `json:"url,omitempty"`
	Path     string `json:"path,omitempty"` // relative to the lock
	SHA256   string `json:"sha256"`
	Size     int64  `json:"size,omitempty"`
}

type selectRequest struct {
	lock, pexLock  string
	targets        []string
	extras, groups []string
}

func (a *app) lockSelectCommand() *cobra.Command {
	var r selectRequest
	c := &cobra.Command{
		Use:   "select --lock FILE --target 3.11:manylinux_2_28_x86_64...",
		Short: "Say which wheels of a lock a target needs, as JSON, for build tools",
		Long: `Say which wheels of a lock each target needs, as JSON on standard output, for build tools. Nothing is read but the
lock: no cache, no network, no home directory.

"pex" is the wheel that 'compose bootstrap' needs. Its url is there if a lock has it: this one, or --pex-lock.`,
		Args:              cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkOutput() },
		RunE: func(c *cobra.Command, _ []string) error {
			selection, err := r.read()
			if err != nil {
				return err
			}
			e := json.NewEncoder(a.ui.out)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			return e.Encode(selection)
		},
	}
	f := c.Flags()
	f.StringVar(&r.lock, "lock", "", "pylock.toml (PEP 751)")
	f.StringArrayVar(&r.targets, "target", nil, "`PYTHON:PLATFORM`, such as 3.11:manylinux_2_28_x86_64")
	f.StringSliceVar(&r.extras, "extra", nil, "extra to select")
	f.StringSliceVar(&r.groups, "group", nil, "dependency group to select")
	f.StringVar(&r.pexLock, "pex-lock", "", "another lock, which has the pex wheel")
	required(c, "lock", "target")
	return c
}

// selection is what `lock select` writes.
type selection struct {
	Targets map[string][]selectedWheel `json:"targets"`
	Pex     selectedWheel              `json:"pex"`
}

func (r *selectRequest) read() (*selection, error) {
	l, err := readLockFile(r.lock)
	if err != nil {
		return nil, err
	}
	s := &selection{Targets: map[string][]selectedWheel{}}
	for _, name := range r.targets {
		python, platform, ok := strings.Cut(name, ":")
		if !ok {
			return nil, usageError{fmt.Errorf("--target is PYTHON:PLATFORM, such as 3.11:%s, not %q", lock.DefaultPlatform, name)}
		}
		t, err := lock.ParseTarget(python, platform)
		if err != nil {
			return nil, usageError{err}
		}
		wheels, err := l.Select(t, lock.Selection{Extras: r.extras, Groups: r.groups})
		if err != nil {
			return nil, inputErrorf("%s: %w", r.lock, err)
		}
		s.Targets[name] = []selectedWheel{}
		for _, w := range wheels {
			if !sha256Hex().MatchString(w.SHA256) {
				return nil, inputErrorf("%s: the sha256 of %s there is %.80q, by which build tools check what they fetch: lock again",
					r.lock, w.Filename, w.SHA256)
			}
			s.Targets[name] = append(s.Targets[name], selected(w))
		}
	}
	s.Pex, err = r.pex(l)
	return s, err
}

// sha256Hex is what may get into what build tools generate of a lock.
var sha256Hex = lazy.Regexp(`^[0-9a-f]{64}$`)

func selected(w lock.Wheel) selectedWheel {
	return selectedWheel{w.Name, w.Version, w.Filename, w.URL, w.Path, w.SHA256, w.Size}
}

// pex returns the wheel that the bootstrap is made of, and where it is as far as a lock says.
func (r *selectRequest) pex(l *lock.Lock) (selectedWheel, error) {
	p := fetch.PexPin
	pinned := selectedWheel{Name: p.Project, Version: p.Version, Filename: p.Filename, SHA256: p.SHA256, Size: p.Size}
	if r.pexLock == "" {
		pinned.URL, pinned.Path = r.findPinned(l, pinned, r.extras, r.groups)
		return pinned, nil
	}
	other, err := readLockFile(r.pexLock)
	if err != nil {
		return pinned, err
	}
	url, path := r.findPinned(other, pinned, nil, nil)
	if url == "" && path == "" {
		return pinned, inputErrorf("%s does not have %s with the sha256 %s: lock %s==%s", r.pexLock, p.Filename, p.SHA256, p.Project, p.Version)
	}
	if path != "" && !filepath.IsAbs(path) {
		if path, err = filepath.Rel(filepath.Dir(r.lock), filepath.Join(filepath.Dir(r.pexLock), path)); err != nil {
			return pinned, err
		}
	}
	pinned.URL, pinned.Path = url, path
	return pinned, nil
}

// findPinned returns where a lock says that the pinned wheel is. It runs with every Python, so any target selects it.
func (r *selectRequest) findPinned(l *lock.Lock, pinned selectedWheel, extras, groups []string) (url, path string) {
	for _, name := range r.targets {
		python, platform, _ := strings.Cut(name, ":")
		t, err := lock.ParseTarget(python, platform)
		if err != nil {
			continue
		}
		wheels, err := l.Select(t, lock.Selection{Extras: extras, Groups: groups})
		if err != nil {
			continue
		}
		for _, w := range wheels {
			if w.SHA256 == pinned.SHA256 {
				return w.URL, w.Path
			}
		}
	}
	return "", ""
}

func readLockFile(path string) (*lock.Lock, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, inputErrorf("%w: run pexpress lock", err)
	}
	if err != nil {
		return nil, err
	}
	l, err := lock.Parse(b)
	if err != nil {
		return nil, inputErrorf("%s: %w", path, err)
	}
	return l, nil
}
