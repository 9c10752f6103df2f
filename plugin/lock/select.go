package lock

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Selection is what to take from a lock beside its default packages.
type Selection struct{ Extras, Groups []string }

// Wheel is one file that a target needs.
type Wheel struct {
	Name     string // of the project, normalized
	Version  string
	Filename string
	// URL or Path says where it is; Path is relative to the lock. Both may be given.
	URL, Path string
	// SHA256 is empty, and Size 0, when the lock does not say.
	SHA256 string
	Size   int64
	// Hashes are all that the lock gives, by algorithm as Python's hashlib names it.
	Hashes map[string]string
}

// NoWheelError says that a package has no wheel for a target.
type NoWheelError struct {
	Package, Version string
	Target           Target
	Sdist            string   // file name of its source distribution, "" if the lock has none
	Wheels           []string // the wheels that there are
}

// Error implements error.
func (e *NoWheelError) Error() string {
	s := fmt.Sprintf("%s %s has no wheel for %s", e.Package, e.Version, e.Target)
	if len(e.Wheels) > 0 {
		shown := e.Wheels[:min(len(e.Wheels), 4)]
		s += fmt.Sprintf("; there are %s", strings.Join(shown, ", "))
		if more := len(e.Wheels) - len(shown); more > 0 {
			s += fmt.Sprintf(" and %d more", more)
		}
	}
	if e.Sdist != "" {
		s += fmt.Sprintf("; there is the source distribution %s: build a wheel of it (pip wheel), and lock with that wheel's directory in find-links", e.Sdist)
	}
	return s + "; where the lock was made for another platform or Python, make it anew (pexpress lock), or build for that with --platform or --python"
}

// Is makes a NoWheelError an ErrLock.
func (e *NoWheelError) Is(target error) bool { return target == ErrLock }

// Select returns the wheels for a target, sorted by name. Packages that are directories are the project's own and its
// workspace's; their files are in source.pex, and they are left out here.
func (l *Lock) Select(t Target, s Selection) ([]Wheel, error) {
	env, err := l.environment(t, s)
	if err != nil {
		return nil, err
	}
	ranks := t.ranks()
	var wheels []Wheel
	chosen := map[string]string{}
	for _, p := range l.doc.Packages {
		applies, err := p.applies(t, env)
		if err != nil {
			return nil, err
		}
		if !applies {
			continue
		}
		if other, ok := chosen[p.Name]; ok {
			return nil, fmt.Errorf("%w: %s is selected twice for %s, in the versions %s and %s: their markers overlap",
				ErrLock, p.Name, t, other, p.Version)
		}
		chosen[p.Name] = p.Version
		if p.Directory != nil {
			continue
		}
		w, err := p.wheel(t, ranks)
		if err != nil {
			return nil, err
		}
		wheels = append(wheels, w)
	}
	slices.SortFunc(wheels, func(a, b Wheel) int { return strings.Compare(a.Filename, b.Filename) })
	return wheels, nil
}

// environment checks that the lock is for the target and returns what its markers are evaluated in.
func (l *Lock) environment(t Target, s Selection) (*environment, error) {
	if ok, err := t.admittedBy(l.doc.RequiresPython); err != nil {
		return nil, fmt.Errorf("%w: requires-python: %w", ErrLock, err)
	} else if !ok {
		return nil, fmt.Errorf("%w: it is for Python %s, the target is %s: lock again, or build with another --python",
			ErrLock, l.doc.RequiresPython, t)
	}
	env := t.environment()
	var err error
	if env.extras, err = known("extra", s.Extras, l.doc.Extras); err != nil {
		return nil, err
	}
	if env.groups, err = known("dependency group", s.Groups, append(slices.Clone(l.doc.Groups), l.doc.DefaultGroups...)); err != nil {
		return nil, err
	}
	for _, g := range l.doc.DefaultGroups {
		env.groups[NormalizeName(g)] = true
	}
	for _, m := range l.doc.Environments {
		ok, err := evaluate(m, env)
		if err != nil {
			return nil, fmt.Errorf("%w: environments: %w", ErrLock, err)
		}
		if ok {
			return env, nil
		}
	}
	if len(l.doc.Environments) > 0 {
		return nil, fmt.Errorf("%w: it is for the environments %q, and %s is none of them", ErrLock, l.doc.Environments, t)
	}
	return env, nil
}

// known returns the set of names, which the lock must have.
func known(what string, names, there []string) (map[string]bool, error) {
	set, have := map[string]bool{}, map[string]bool{}
	for _, n := range there {
		have[NormalizeName(n)] = true
	}
	for _, n := range names {
		n = NormalizeName(n)
		// A lock made for certain extras alone names none: they are its default.
		if len(there) > 0 && !have[n] {
			return nil, fmt.Errorf("%w: it has no %s %q; it has %q", ErrLock, what, n, there)
		}
		set[n] = true
	}
	return set, nil
}

func (p *pkg) applies(t Target, env *environment) (bool, error) {
	if p.Marker != "" {
		ok, err := evaluate(p.Marker, env)
		if err != nil {
			return false, fmt.Errorf("%w: package %s: %w", ErrLock, p.Name, err)
		}
		if !ok {
			return false, nil
		}
	}
	if ok, err := t.admittedBy(p.RequiresPython); err != nil {
		return false, fmt.Errorf("%w: package %s: requires-python: %w", ErrLock, p.Name, err)
	} else if !ok {
		return false, fmt.Errorf("%w: %s %s is for Python %s, the target is %s", ErrLock, p.Name, p.Version, p.RequiresPython, t)
	}
	return true, nil
}

// wheel returns the package's best wheel for the target.
func (p *pkg) wheel(t Target, ranks map[string]int) (Wheel, error) {
	if p.VCS != nil {
		return Wheel{}, fmt.Errorf("%w: %s comes from version control; build a wheel of it and lock that", ErrLock, p.Name)
	}
	files := p.Wheels
	if p.Archive != nil {
		if !strings.HasSuffix(p.Archive.filename(), ".whl") {
			return Wheel{}, &NoWheelError{p.Name, p.Version, t, p.Archive.filename(), nil}
		}
		files = append(files, *p.Archive)
	}
	best, rank := -1, 0
	var names []string
	for i := range files {
		name := files[i].filename()
		names = append(names, name)
		w, err := parseFilename(name)
		if err != nil {
			return Wheel{}, fmt.Errorf("%w: package %s: %w", ErrLock, p.Name, err)
		}
		if w.name != p.Name {
			return Wheel{}, fmt.Errorf("%w: package %s has the wheel %s, which is of another project", ErrLock, p.Name, name)
		}
		if r, ok := w.rank(ranks); ok && (best < 0 || r < rank || r == rank && w.build > buildOf(files[best].filename())) {
			best, rank = i, r
		}
	}
	if best < 0 {
		sdist := ""
		if p.Sdist != nil {
			sdist = p.Sdist.filename()
		}
		return Wheel{}, &NoWheelError{p.Name, p.Version, t, sdist, names}
	}
	return p.describe(&files[best])
}

func (p *pkg) describe(f *file) (Wheel, error) {
	name := f.filename()
	w := Wheel{
		Name: p.Name, Version: p.Version, Filename: name, URL: f.URL, Path: f.Path,
		SHA256: strings.ToLower(f.Hashes["sha256"]), Size: f.Size, Hashes: f.Hashes,
	}
	if w.Version == "" {
		parsed, _ := parseFilename(name)
		w.Version = parsed.version
	}
	switch {
	case len(f.Hashes) == 0:
		return w, fmt.Errorf("%w: %s has no hash: what cannot be checked is not fetched; lock again", ErrLock, name)
	case f.URL == "" && f.Path == "":
		return w, fmt.Errorf("%w: %s has neither url nor path", ErrLock, name)
	case f.Size < 0:
		return w, fmt.Errorf("%w: %s has the size %d", ErrLock, name, f.Size)
	}
	return w, nil
}

func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}
