package project

import (
	"errors"
	"fmt"
	"path/filepath"

	version "github.com/aquasecurity/go-pep440-version"
)

// ErrNotLocked is wrapped by the errors about requirements that the lock does not satisfy.
var ErrNotLocked = errors.New("run pexpress lock")

// CheckLocked checks that the lock holds what the location and its local projects declare: every requirement's name, in
// a version that it allows. locked are the versions by normalized name. applies evaluates a marker (PEP 508) for the
// target, nil if that is not known; a requirement whose marker it rejects or cannot evaluate is not looked for.
func (p *Project) CheckLocked(loc *Location, locked map[string]string, applies func(marker string) (bool, error)) error {
	g, err := p.graph(loc)
	if err != nil {
		return err
	}
	lock := filepath.Base(loc.Lock)
	var errs []error
	for _, r := range g.declared {
		if r.name == "" || r.marker == conditional {
			continue
		}
		if r.marker != "" {
			if applies == nil {
				continue
			}
			if ok, err := applies(r.marker); err != nil || !ok {
				continue
			}
		}
		have, ok := locked[r.name]
		if !ok {
			errs = append(errs, fmt.Errorf("requirement %s of %s is not in %s: %w", r.text, r.where, lock, ErrNotLocked))
		} else if !allows(r.spec, have) {
			errs = append(errs, fmt.Errorf("requirement %s of %s does not allow %s %s, which is in %s: %w",
				r.text, r.where, r.name, have, lock, ErrNotLocked))
		}
	}
	return errors.Join(errs...)
}

// allows reports whether the specifiers admit the version. The resolver chose it, so pre-releases count, and what
// cannot be parsed is not held against it.
func allows(spec, have string) bool {
	v, err := version.Parse(have)
	if spec == "" || err != nil {
		return true
	}
	specifiers, err := version.NewSpecifiers(spec, version.WithPreRelease(true))
	return err != nil || specifiers.Check(v)
}
