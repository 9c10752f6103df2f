package auth

import "strings"

// Patterns is a list of principals' names, in which * stands for any characters.
type Patterns []string

// Match reports whether one of the patterns is name's. [Anonymous] must be listed as it is: no * stands for it, so that
// "everyone" means everyone who showed who they are.
func (ps Patterns) Match(name string) bool {
	for _, p := range ps {
		if p == name && name != "" || name != "" && name != Anonymous && glob(p, name) {
			return true
		}
	}
	return false
}

// glob reports whether s is p, with each * in p standing for any characters, also none.
func glob(p, s string) bool {
	parts := strings.Split(p, "*")
	if len(parts) == 1 {
		return p == s
	}
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		// The leftmost place leaves the most for the rest.
		if _, s, ok = strings.Cut(s, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}
