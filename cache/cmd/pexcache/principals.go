package main

import (
	"fmt"
	"strings"

	"github.com/pexpress/pexpress/cache/auth"
)

// kinds are what the names of principals begin with.
var kinds = []string{"token:", "cert:", "oidc:"}

const principalForms = "principals are token:NAME, cert:NAME, oidc:NAME and " + auth.Anonymous

// checkPrincipal refuses the name of a principal that nobody can be.
func checkPrincipal(name string) error {
	if name == auth.Anonymous {
		return nil
	}
	for _, k := range kinds {
		if strings.HasPrefix(name, k) && len(name) > len(k) {
			return nil
		}
	}
	return fmt.Errorf("nobody is called %q: %s", name, principalForms)
}

// checkPattern refuses a pattern that fits no principal.
func checkPattern(pattern string) error {
	before, _, star := strings.Cut(pattern, "*")
	if !star {
		return checkPrincipal(pattern)
	}
	for _, k := range kinds {
		if strings.HasPrefix(before, k) || strings.HasPrefix(k, before) {
			return nil
		}
	}
	return fmt.Errorf("%q fits nobody: %s", pattern, principalForms)
}

// checkPrincipals looks at every list of principals.
func (c *config) checkPrincipals() error {
	lists := []struct {
		key      string
		patterns []string
	}{{"observers", c.Observers}}
	for _, i := range c.Instances {
		for key, l := range map[string][]string{"read": i.Read, "write-cas": i.WriteCAS, "write-actions": i.WriteActions} {
			lists = append(lists, struct {
				key      string
				patterns []string
			}{fmt.Sprintf("instance %q: %s", i.Name, key), l})
		}
	}
	for _, l := range lists {
		for _, p := range l.patterns {
			if err := checkPattern(p); err != nil {
				return fmt.Errorf("%s: %w", l.key, err)
			}
		}
	}
	return nil
}
