package project

import (
	"regexp"
	"strings"

	"github.com/pexpress/pexpress/cache/lazy"
)

// This file reads Python without running it: the literals that a setup.py passes to setup(), and those assigned at a
// module's top level. Whatever is computed is unknown, a nil value.

// A pyCall is a call of a function, such as find_packages(where="src").
type pyCall struct {
	function string
	args     []any
	keywords map[string]any
}

// setupCall returns the keywords of the first call of setup() in a setup.py, nil if there is none.
func setupCall(source string) map[string]any {
	p := &pyParser{tokens: pyTokens(source), names: map[string]any{}}
	for p.at < len(p.tokens) {
		t := p.tokens[p.at]
		next := p.peek(1)
		switch {
		case t.kind == pyName && t.column == 0 && next == "=":
			p.at += 2
			p.names[t.text] = p.value()
		case t.kind == pyName && (t.text == "setup" || strings.HasSuffix(t.text, ".setup")) && next == "(":
			if call, ok := p.value().(pyCall); ok {
				return call.keywords
			}
		default:
			p.at++
		}
	}
	return nil
}

// assignment finds `name = "literal"` at the top level of a module, with or without an annotation.
func assignment(source, name string) (string, bool) {
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `[ \t]*(?::[^=\n]*)?=[ \t]*(.*)$`).FindStringSubmatch(source)
	if m == nil {
		return "", false
	}
	p := &pyParser{tokens: pyTokens(m[1])}
	s, ok := p.value().(string)
	return s, ok
}

type pyKind uint8

const (
	pyOther pyKind = iota
	pyName         // also dotted
	pyString
	pyComputed // an f-string, bytes, or a number
)

type pyToken struct {
	kind   pyKind
	text   string // of a string: its value
	column int
}

var (
	pyNameStart = lazy.Regexp(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*`)
	pyNumber    = lazy.Regexp(`^[0-9][\w.]*`)
	pyQuote     = lazy.Regexp(`^([rRuUbBfF]{0,2})("""|'''|"|')`)
)

func pyTokens(s string) []pyToken {
	var out []pyToken
	lineStart := 0
	for i := 0; i < len(s); {
		rest := s[i:]
		switch c := s[i]; {
		case c == '\n':
			i++
			lineStart = i
			continue
		case c == ' ' || c == '\t' || c == '\r' || c == '\\':
			i++
			continue
		case c == '#':
			if end := strings.IndexByte(rest, '\n'); end >= 0 {
				i += end
				continue
			}
			return out
		}
		t, n := pyTokenAt(rest)
		t.column = i - lineStart
		out = append(out, t)
		i += n
	}
	return out
}

// pyTokenAt returns the token that s begins with and its length.
func pyTokenAt(s string) (pyToken, int) {
	if m := pyQuote().FindStringSubmatch(s); m != nil {
		prefix, quote := strings.ToLower(m[1]), m[2]
		value, n := pyUnquote(s[len(m[0]):], quote, strings.Contains(prefix, "r"))
		kind := pyString
		if strings.ContainsAny(prefix, "bf") {
			kind = pyComputed
		}
		return pyToken{kind: kind, text: value}, len(m[0]) + n
	}
	if m := pyNameStart().FindString(s); m != "" {
		return pyToken{kind: pyName, text: m}, len(m)
	}
	if m := pyNumber().FindString(s); m != "" {
		return pyToken{kind: pyComputed, text: m}, len(m)
	}
	for _, op := range []string{"==", "!=", "<=", ">=", "+=", "->", ":="} {
		if strings.HasPrefix(s, op) {
			return pyToken{text: op}, len(op)
		}
	}
	return pyToken{text: s[:1]}, 1
}

// pyUnquote reads a string up to its closing quote; of the escapes only those that matter in names and paths.
func pyUnquote(s, quote string, raw bool) (string, int) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], quote) {
			return b.String(), i + len(quote)
		}
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch {
		case raw:
			b.WriteString(s[i-1 : i+1])
		case s[i] == 'n':
			b.WriteByte('\n')
		case s[i] == 't':
			b.WriteByte('\t')
		case s[i] == '\n':
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), len(s)
}

type pyParser struct {
	tokens []pyToken
	at     int
	names  map[string]any // assigned at the top level so far
}

func (p *pyParser) peek(ahead int) string {
	if p.at+ahead < len(p.tokens) && p.tokens[p.at+ahead].kind == pyOther {
		return p.tokens[p.at+ahead].text
	}
	return ""
}

// value reads one expression; of anything but a literal, a known name or a call it skips what belongs to it.
func (p *pyParser) value() any {
	v := p.primary()
	if p.at >= len(p.tokens) {
		return v
	}
	switch p.peek(0) {
	case ",", ")", "]", "}", ":":
		return v
	}
	if p.tokens[p.at].column == 0 { // a new statement
		return v
	}
	p.skip()
	return nil
}

// skip moves to the comma or bracket that ends the present expression, or to the next statement.
func (p *pyParser) skip() {
	for depth := 0; p.at < len(p.tokens); p.at++ {
		if depth == 0 && p.tokens[p.at].column == 0 {
			return
		}
		switch p.peek(0) {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			if depth == 0 {
				return
			}
			depth--
		case ",":
			if depth == 0 {
				return
			}
		}
	}
}

func (p *pyParser) primary() any {
	if p.at >= len(p.tokens) {
		return nil
	}
	t := p.tokens[p.at]
	p.at++
	switch {
	case t.kind == pyString:
		s := t.text
		for p.at < len(p.tokens) && p.tokens[p.at].kind == pyString && p.tokens[p.at].column > 0 {
			s += p.tokens[p.at].text
			p.at++
		}
		return s
	case t.kind == pyName && p.peek(0) == "(":
		p.at++
		return p.call(t.text)
	case t.kind == pyName:
		return p.names[t.text]
	case t.text == "[":
		return p.items("]")
	case t.text == "(":
		items := p.items(")")
		if len(items) == 1 {
			if s, ok := items[0].(string); ok { // a string in parentheses; a tuple of one reads the same way
				return s
			}
		}
		return items
	case t.text == "{":
		return p.dict()
	}
	return nil
}

func (p *pyParser) items(closer string) []any {
	out := []any{}
	for p.at < len(p.tokens) && p.peek(0) != closer {
		before := p.at
		out = append(out, p.value())
		p.separator(before)
	}
	p.at++
	return out
}

func (p *pyParser) dict() map[string]any {
	out := map[string]any{}
	for p.at < len(p.tokens) && p.peek(0) != "}" {
		before := p.at
		key, ok := p.value().(string)
		if p.peek(0) == ":" {
			p.at++
			if v := p.value(); ok {
				out[key] = v
			}
		}
		p.separator(before)
	}
	p.at++
	return out
}

func (p *pyParser) call(function string) pyCall {
	c := pyCall{function: function, keywords: map[string]any{}}
	for p.at < len(p.tokens) && p.peek(0) != ")" {
		before := p.at
		if t := p.tokens[p.at]; t.kind == pyName && p.peek(1) == "=" {
			p.at += 2
			c.keywords[t.text] = p.value()
		} else {
			c.args = append(c.args, p.value())
		}
		p.separator(before)
	}
	p.at++
	return c
}

// separator skips a comma, and makes sure that the parser has moved since before.
func (p *pyParser) separator(before int) {
	if p.peek(0) == "," || p.at == before {
		p.at++
	}
}
