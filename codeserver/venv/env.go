package venv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/codeserver/once"
)

// Env is a virtual environment on this host.
type Env struct {
	Dir      string   // its absolute path
	Warnings []string // what the wheels disagree on, for people
	Fetched  Fetched  // the bytecode that came for it
}

// Python returns the path of the environment's interpreter.
func (e *Env) Python() string { return filepath.Join(e.Dir, "bin", "python") }

// marker is the content of env.json: what an environment was made for.
type marker struct {
	Layout   int           `json:"layout"`
	Key      digest.Digest `json:"key"`
	Python   string        `json:"python"`
	Version  string        `json:"version"`
	Wheels   []Wheel       `json:"wheels"`
	Warnings []string      `json:"warnings,omitempty"`
}

func (m marker) madeFor(want marker) bool {
	return m.Layout == want.Layout && m.Key == want.Key && m.Python == want.Python && m.Version == want.Version &&
		slices.Equal(m.Wheels, want.Wheels)
}

// config is what makes a directory a virtual environment of the interpreter (PEP 405).
func (m marker) config() string {
	return fmt.Sprintf("home = %s\ninclude-system-site-packages = false\nversion = %s\nexecutable = %s\n", filepath.Dir(m.Python), m.Version, m.Python)
}

func readMarker(dir string) (marker, error) {
	var m marker
	b, err := readSmall(filepath.Join(dir, "env.json"))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", filepath.Join(dir, "env.json"), err)
	}
	return m, nil
}

// Env returns the environment of these wheels for the interpreter; key is the digest of the deps tree that they come
// from. It is made if it is not there, and made again if it is there for other wheels, for another release of the
// interpreter or damaged. The same key with another minor version of Python is another environment.
//
// Keep may delete the environment as soon as Env has returned, unless it is called with this key.
func (s *Store) Env(ctx context.Context, key digest.Digest, wheels []Wheel, py *Interpreter, cas cache.CAS) (*Env, error) {
	if py == nil || !minor.MatchString(py.Version) || !filepath.IsAbs(py.Path) {
		return nil, errors.New("make an environment: not an interpreter that Find returned")
	}
	if key.IsZero() {
		return nil, errors.New("make an environment: no key")
	}
	wheels, err := sortWheels(wheels)
	if err != nil {
		return nil, fmt.Errorf("environment %s: %w", key.Short(), err)
	}
	want := marker{Layout: envLayout, Key: key, Python: py.Path, Version: py.FullVersion, Wheels: wheels}
	name := envDir(key, py.Version)
	for {
		m, err := once.Do(ctx, &s.envs, name, func() (made, error) {
			e, err := s.env(ctx, name, want, py, cas)
			return made{e, want}, err
		})
		if m.Layout != 0 && !m.madeFor(want) {
			continue // another call, whose end this one waited for, wanted other wheels under the same key
		}
		if err != nil {
			return nil, fmt.Errorf("environment %s: %w", key.Short(), err)
		}
		return m.env, nil
	}
}

// made is an environment and what it was made for.
type made struct {
	env *Env
	marker
}

// sortWheels returns the wheels in the order in which they are merged, without duplicates.
func sortWheels(wheels []Wheel) ([]Wheel, error) {
	wheels = slices.Clone(wheels)
	slices.SortFunc(wheels, func(a, b Wheel) int {
		return cmp.Or(strings.Compare(a.Filename, b.Filename), a.Digest.Compare(b.Digest))
	})
	wheels = slices.Compact(wheels)
	projects := map[string]string{}
	for _, w := range wheels {
		n, err := parseFilename(w.Filename)
		if err != nil {
			return nil, err
		}
		if w.Digest.IsZero() {
			return nil, fmt.Errorf("wheel %s: no digest", w.Filename)
		}
		if other, ok := projects[NormalizeName(n.project)]; ok {
			return nil, fmt.Errorf("%s and %s are wheels of one project", other, w.Filename)
		}
		projects[NormalizeName(n.project)] = w.Filename
	}
	return wheels, nil
}

// env returns the environment in the named directory of the store.
func (s *Store) env(ctx context.Context, name string, want marker, py *Interpreter, cas cache.CAS) (*Env, error) {
	dirs := wheelDirs(want.Wheels, py.Version)
	defer s.hold(append(slices.Clone(dirs), name))()
	if e := s.existing(name, want, dirs); e != nil {
		return e, nil
	}
	bytecode := s.beginFetch(ctx, want.Wheels, dirs, py)
	if err := s.unpackAll(ctx, want.Wheels, dirs, cas); err != nil {
		bytecode.abandon()
		return nil, err
	}
	fetched, err := bytecode.end(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.commit(dirs); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(s.path("tmp"), "env-")
	if err != nil {
		return nil, err
	}
	err = s.build(tmp, name, &want, dirs, py)
	if err == nil {
		err = s.publishEnv(tmp, name)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	return &Env{Dir: s.path(name), Warnings: want.Warnings, Fetched: fetched}, nil
}

// publishEnv makes an environment durable and moves it to its name.
func (s *Store) publishEnv(tmp, name string) error {
	if err := durable.SyncFS(tmp); err != nil {
		return err
	}
	old, err := s.publish(tmp, name)
	_ = os.RemoveAll(old)
	if err != nil {
		return err
	}
	return s.syncDir("envs")
}

// existing returns the environment if it is there, as it is wanted, and with all its wheels.
func (s *Store) existing(name string, want marker, dirs []string) *Env {
	dir := s.path(name)
	m, err := readMarker(dir)
	if err != nil || !m.madeFor(want) {
		return nil
	}
	// An interpreter without it imports what is installed in the system, and nothing else would be seen of that.
	if b, err := readSmall(filepath.Join(dir, "pyvenv.cfg")); err != nil || string(b) != want.config() {
		return nil
	}
	needed := []string{filepath.Join(dir, "bin", "python")}
	for _, d := range dirs {
		needed = append(needed, s.path(d, "wheel.json"))
	}
	for _, path := range needed {
		if _, err := os.Stat(path); err != nil {
			return nil
		}
	}
	return &Env{Dir: dir, Warnings: m.Warnings}
}

// unpackAll unpacks the wheels that are not unpacked yet, as many at once as there are processors. The largest come
// first: one that came last would be waited for alone.
func (s *Store) unpackAll(ctx context.Context, wheels []Wheel, dirs []string, cas cache.CAS) error {
	bySize := make([]int, len(wheels))
	for i := range bySize {
		bySize[i] = i
	}
	slices.SortStableFunc(bySize, func(a, b int) int {
		return cmp.Compare(wheels[b].Digest.Size(), wheels[a].Digest.Size())
	})
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, i := range bySize {
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return err
			}
			return s.stage(gctx, wheels[i], dirs[i], cas)
		})
	}
	return g.Wait()
}

// build makes the environment in tmp, to be moved to its name.
func (s *Store) build(tmp, name string, m *marker, dirs []string, py *Interpreter) error {
	python := "python" + py.Version
	l := &linker{root: tmp, tag: py.Tag, real: map[string][]source{}, reserved: map[string]bool{
		"pyvenv.cfg": true, "env.json": true, "lib64": true, "bin/python": true, "bin/python3": true, "bin/" + python: true,
	}}
	site := path.Join("lib", python, "site-packages")
	l.site = site
	l.mount("bin")
	l.mount(site)
	unpackedDirs, infos := make([]string, len(dirs)), make([]*unpacked, len(dirs))
	var data []source
	for i, w := range m.Wheels {
		dir := s.path(dirs[i])
		u, err := readUnpacked(dir)
		if err != nil {
			return err
		}
		unpackedDirs[i], infos[i] = dir, u
		l.mount(site, source{i, w.Filename, filepath.Join(dir, "site"), true})
		if include := filepath.Join(dir, "include"); exists(include) {
			project, _, _ := strings.Cut(u.DistInfo, "-")
			l.mount(path.Join("include", "site", python, project), source{i, w.Filename, include, true})
		}
		if d := filepath.Join(dir, "data"); exists(d) {
			data = append(data, source{i, w.Filename, d, true})
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := l.merge(".", data); err != nil {
		return err
	}
	if err := l.scripts(s.path(name), m.Wheels, unpackedDirs, infos); err != nil {
		return err
	}
	m.Warnings = l.warnings
	return finish(tmp, *m, py)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// finish adds what makes the directory a virtual environment (PEP 405), and the marker.
func finish(dir string, m marker, py *Interpreter) error {
	links := [][2]string{
		{py.Path, "bin/python"},
		{"python", "bin/python3"},
		{"python", "bin/python" + py.Version},
		{"lib", "lib64"}, // where some distributions' builds of Python look
	}
	for _, l := range links {
		if err := os.Symlink(l[0], filepath.Join(dir, l[1])); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "pyvenv.cfg"), []byte(m.config()), 0o644); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "env.json"), b, 0o644)
}
