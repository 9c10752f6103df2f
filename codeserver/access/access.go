// Package access decides who may do what through a codeserver's control API.
//
// Package auth says who a caller is. A [Policy] says which rights a principal has on which locations; the interceptors
// apply it to each call. A method of the API that no rule is for is refused to everyone.
package access

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/auth"
)

// Right is something that a principal may do to a location.
type Right string

// The rights. Each of the others includes Read: their answers show the location.
const (
	Read     Right = "read"     // its state, its versions with their variables, and their logs
	Deploy   Right = "deploy"   // run any code there
	Rollback Right = "rollback" // go back to a version that is kept, or start the one that serves anew
	Remove   Right = "remove"   // end it
)

// Grant gives rights on some locations.
type Grant struct {
	// Locations are names, in which * stands for any characters.
	Locations []string
	// Principals are named for each right as package auth names them, * standing for any characters.
	Principals map[Right]auth.Patterns
}

// Policy is who may do what. The zero Policy lets nobody do anything.
type Policy struct{ grants []Grant }

var (
	locationPattern  = regexp.MustCompile(`^[A-Za-z0-9*][A-Za-z0-9._*-]{0,62}$`)
	principalPattern = regexp.MustCompile(`^(\*|(token|cert|oidc):.+)$`)
)

// New checks grants and returns the policy that they make.
func New(grants []Grant) (*Policy, error) {
	for i, g := range grants {
		if err := g.check(); err != nil {
			return nil, fmt.Errorf("grant %d: %w", i+1, err)
		}
	}
	return &Policy{grants: grants}, nil
}

func (g Grant) check() error {
	if len(g.Locations) == 0 {
		return errors.New(`it names no locations: write locations = ["*"] for all`)
	}
	for _, l := range g.Locations {
		if !locationPattern.MatchString(l) {
			return fmt.Errorf("no location can be called %.80q", l)
		}
	}
	named := false
	for right, principals := range g.Principals {
		for _, p := range principals {
			named = true
			switch {
			case p == auth.Anonymous && right != Read:
				return fmt.Errorf("%s: who shows nothing may read at most, not %s", auth.Anonymous, right)
			case p != auth.Anonymous && !principalPattern.MatchString(p):
				return fmt.Errorf("%s: nobody is called %.80q: principals are token:NAME, cert:NAME, oidc:NAME and %s",
					right, p, auth.Anonymous)
			}
		}
	}
	if !named {
		return errors.New("it names no principal")
	}
	return nil
}

// May reports whether a principal has a right on a location.
func (p *Policy) May(principal string, right Right, location string) bool {
	for _, g := range p.grants {
		if g.covers(location) && g.gives(principal, right) {
			return true
		}
	}
	return false
}

// MayReadAll reports whether a principal may read every location, those that there may be one day included.
func (p *Policy) MayReadAll(principal string) bool {
	return slices.ContainsFunc(p.grants, func(g Grant) bool {
		return slices.Contains(g.Locations, "*") && g.gives(principal, Read)
	})
}

// Anonymous reports whether someone who shows nothing has any right.
func (p *Policy) Anonymous() bool {
	return slices.ContainsFunc(p.grants, func(g Grant) bool { return g.gives(auth.Anonymous, Read) })
}

func (g Grant) covers(location string) bool {
	return slices.ContainsFunc(g.Locations, func(pattern string) bool {
		// New let only the characters of names and * into the pattern, so that it means nothing else.
		ok, err := path.Match(pattern, location)
		return err == nil && ok && !strings.Contains(location, "/")
	})
}

func (g Grant) gives(principal string, right Right) bool {
	if g.Principals[right].Match(principal) {
		return true
	}
	if right != Read {
		return false
	}
	for _, others := range g.Principals {
		if others.Match(principal) {
			return true
		}
	}
	return false
}
