package project

import (
	"strings"
)

// A rule is one line of a .gitignore file, or one pattern of the configuration, which has the same form.
type rule struct {
	pattern string
	negated bool // a leading "!": what matches is not ignored after all
	dirOnly bool // a trailing slash
	byName  bool // no other slash: the last component alone is compared
	form    ruleForm
}

// ruleForm is how the pattern is compared; most need no wildcard matching.
type ruleForm uint8

const (
	formWild    ruleForm = iota
	formLiteral          // no wildcard at all
	formSuffix           // "*" and then no wildcard, compared with a name
)

// Rules are the patterns of one file, for paths below dir; they are chained to those of the directories above.
type rules struct {
	dir   string // slash-separated path of the directory with a trailing slash; "" is the root
	list  []rule
	outer *rules
}

// parseRules reads gitignore lines. It returns outer itself when there are none.
func parseRules(text, dir string, outer *rules) *rules {
	r := &rules{dir: dir, outer: outer}
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		if parsed, ok := parseRule(trimSpaces(line)); ok {
			r.list = append(r.list, parsed)
		}
	}
	if len(r.list) == 0 {
		return outer
	}
	return r
}

// trimSpaces removes trailing spaces, but for one that a backslash quotes.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ':
			continue
		case '\\':
			i++
		}
		end = min(i+1, len(s))
	}
	return s[:end]
}

func parseRule(s string) (rule, bool) {
	var r rule
	if strings.HasPrefix(s, "!") {
		r.negated, s = true, s[1:]
	}
	if strings.HasSuffix(s, "/") {
		r.dirOnly, s = true, s[:len(s)-1]
	}
	r.byName = !strings.Contains(s, "/")
	r.pattern = strings.TrimPrefix(s, "/")
	switch {
	case !strings.ContainsAny(r.pattern, `*?[\`):
		r.form = formLiteral
	case r.byName && r.pattern[0] == '*' && !strings.ContainsAny(r.pattern[1:], `*?[\`):
		r.form, r.pattern = formSuffix, r.pattern[1:]
	}
	return r, s != ""
}

func (r *rule) match(path, name string, isDir bool) bool {
	if r.dirOnly && !isDir {
		return false
	}
	if r.byName {
		path = name
	}
	switch r.form {
	case formLiteral:
		return path == r.pattern
	case formSuffix:
		return strings.HasSuffix(path, r.pattern)
	default:
		return wildmatch(r.pattern, path)
	}
}

// match reports whether the last rule that applies to path, the innermost file's first, says that it is ignored.
// Whether a directory above path is ignored is for the caller to have asked before.
func (r *rules) match(path string, isDir bool) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	for ; r != nil; r = r.outer {
		below := path[len(r.dir):]
		for i := len(r.list) - 1; i >= 0; i-- {
			if r.list[i].match(below, name, isDir) {
				return !r.list[i].negated
			}
		}
	}
	return false
}

// reaches reports whether a pattern could match something below the directory dir, so that it is worth a look even
// when the directory itself is left out.
func (r *rules) reaches(dir string) bool {
	if r == nil {
		return false
	}
	for _, rule := range r.list {
		if !rule.negated && (rule.byName || prefixMatches(rule.pattern, dir)) {
			return true
		}
	}
	return false
}

// prefixMatches compares the leading components of an anchored pattern with those of dir.
func prefixMatches(pattern, dir string) bool {
	for {
		p, restP, moreP := strings.Cut(pattern, "/")
		d, restD, moreD := strings.Cut(dir, "/")
		if p == "**" {
			return true
		}
		if !wildmatch(p, d) || !moreP {
			return false
		}
		if !moreD {
			return true
		}
		pattern, dir = restP, restD
	}
}
