package project

import "strings"

// wildmatch reports whether text matches a git glob: `?` and `*` stop at a slash, `**` as a whole path component does
// not, `[…]` is a set with ranges, negation and POSIX classes, a backslash quotes. It works on bytes, as git does.
// See gitignore(5) and git's wildmatch.c.
func wildmatch(pattern, text string) bool {
	return wild(pattern, text, true)
}

// wild matches p against t; start says that p begins a path component.
func wild(p, t string, start bool) bool {
	for p != "" {
		if p[0] == '*' {
			return star(p, t, start)
		}
		if t == "" {
			return false
		}
		switch p[0] {
		case '?':
			if t[0] == '/' {
				return false
			}
			p = p[1:]
		case '[':
			in, rest, ok := set(p, t[0])
			if !ok || !in || t[0] == '/' {
				return false
			}
			p = rest
		case '\\':
			if len(p) == 1 || p[1] != t[0] {
				return false
			}
			p = p[2:]
		default:
			if p[0] != t[0] {
				return false
			}
			p = p[1:]
		}
		start = t[0] == '/'
		t = t[1:]
	}
	return t == ""
}

// star matches a pattern that begins with one or more asterisks.
func star(p, t string, start bool) bool {
	rest := strings.TrimLeft(p, "*")
	if len(p)-len(rest) > 1 && start {
		if rest == "" {
			return true
		}
		if rest[0] == '/' {
			return anyDepth(rest[1:], t)
		}
	}
	if rest == "" {
		return !strings.Contains(t, "/")
	}
	for i := 0; ; i++ {
		if wild(rest, t[i:], false) {
			return true
		}
		if i == len(t) || t[i] == '/' {
			return false
		}
	}
}

// anyDepth matches what follows a leading `**/` at t and after each of its slashes.
func anyDepth(p, t string) bool {
	for {
		if wild(p, t, true) {
			return true
		}
		i := strings.IndexByte(t, '/')
		if i < 0 {
			return false
		}
		t = t[i+1:]
	}
}

// set evaluates the bracket expression that p begins with for the byte c and returns what follows it; !ok means that
// it is not closed, and matches nothing.
func set(p string, c byte) (in bool, rest string, ok bool) {
	p = p[1:]
	negated := p != "" && (p[0] == '!' || p[0] == '^')
	if negated {
		p = p[1:]
	}
	for first := true; ; first = false {
		if p == "" {
			return false, "", false
		}
		if p[0] == ']' && !first {
			return in != negated, p[1:], true
		}
		if strings.HasPrefix(p, "[:") {
			class, after, closed := strings.Cut(p[2:], ":]")
			if closed {
				member, known := posixClass(class, c)
				if !known {
					return false, "", false
				}
				in = in || member
				p = after
				continue
			}
		}
		lo, after, valid := setByte(p)
		if !valid {
			return false, "", false
		}
		hi := lo
		if len(after) > 1 && after[0] == '-' && after[1] != ']' {
			if hi, after, valid = setByte(after[1:]); !valid {
				return false, "", false
			}
		}
		in = in || lo <= c && c <= hi
		p = after
	}
}

// setByte reads one possibly quoted byte of a bracket expression.
func setByte(p string) (c byte, rest string, ok bool) {
	if p[0] != '\\' {
		return p[0], p[1:], true
	}
	if len(p) == 1 {
		return 0, "", false
	}
	return p[1], p[2:], true
}

func posixClass(name string, c byte) (member, known bool) {
	lower, upper, digit := 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9'
	graph := 0x21 <= c && c <= 0x7e
	switch name {
	case "alnum":
		return lower || upper || digit, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < 0x20 || c == 0x7f, true
	case "digit":
		return digit, true
	case "graph":
		return graph, true
	case "lower":
		return lower, true
	case "print":
		return graph || c == ' ', true
	case "punct":
		return graph && !lower && !upper && !digit, true
	case "space":
		return c == ' ' || '\t' <= c && c <= '\r', true
	case "upper":
		return upper, true
	case "xdigit":
		return digit || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F', true
	}
	return false, false
}
