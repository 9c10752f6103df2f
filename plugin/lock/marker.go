package lock

import (
	"fmt"
	"strings"
	"unicode"
)

// environment is what a marker is evaluated in: PEP 508's variables, and PEP 751's extras and dependency_groups.
type environment struct {
	vars           map[string]string
	extras, groups map[string]bool
}

// evaluate parses and evaluates a marker (PEP 508, as PEP 751 extends it).
func evaluate(marker string, env *environment) (bool, error) {
	p := &markerParser{env: env}
	var err error
	if p.tokens, err = tokenize(marker); err != nil {
		return false, fmt.Errorf("marker %q: %w", marker, err)
	}
	ok, err := p.or()
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("unexpected %q", p.tokens[0].text)
	}
	if err != nil {
		return false, fmt.Errorf("marker %q: %w", marker, err)
	}
	return ok, nil
}

type tokenKind int

const (
	word tokenKind = iota
	quoted
	symbol
)

type token struct {
	kind tokenKind
	text string
}

func tokenize(s string) ([]token, error) {
	var tokens []token
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		switch c := s[0]; {
		case c == '"' || c == '\'':
			end := strings.IndexByte(s[1:], c)
			if end < 0 {
				return nil, fmt.Errorf("the string %.40s does not end", s)
			}
			tokens = append(tokens, token{quoted, s[1 : 1+end]})
			s = s[end+2:]
		case c == '(' || c == ')':
			tokens = append(tokens, token{symbol, s[:1]})
			s = s[1:]
		case strings.IndexByte("<>=!~", c) >= 0:
			n := len(s) - len(strings.TrimLeft(s, "<>=!~"))
			tokens = append(tokens, token{symbol, s[:n]})
			s = s[n:]
		default:
			n := strings.IndexFunc(s, func(r rune) bool {
				return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '.'
			})
			if n == 0 {
				return nil, fmt.Errorf("unexpected %.20q", s)
			}
			if n < 0 {
				n = len(s)
			}
			tokens = append(tokens, token{word, s[:n]})
			s = s[n:]
		}
	}
	return tokens, nil
}

// maxNesting bounds the parentheses of a marker.
const maxNesting = 100

// markerParser evaluates while it parses; both sides of and, or are always looked at, so that an error in either shows.
type markerParser struct {
	env    *environment
	tokens []token
	depth  int
}

func (p *markerParser) peek(kind tokenKind, text string) bool {
	return len(p.tokens) > 0 && p.tokens[0] == token{kind, text}
}

func (p *markerParser) take(kind tokenKind, text string) bool {
	if !p.peek(kind, text) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *markerParser) or() (bool, error) {
	ok, err := p.and()
	for err == nil && p.take(word, "or") {
		var right bool
		right, err = p.and()
		ok = ok || right
	}
	return ok, err
}

func (p *markerParser) and() (bool, error) {
	ok, err := p.term()
	for err == nil && p.take(word, "and") {
		var right bool
		right, err = p.term()
		ok = ok && right
	}
	return ok, err
}

func (p *markerParser) term() (bool, error) {
	if !p.take(symbol, "(") {
		return p.comparison()
	}
	if p.depth++; p.depth > maxNesting {
		return false, fmt.Errorf("more than %d parentheses", maxNesting)
	}
	ok, err := p.or()
	if err == nil && !p.take(symbol, ")") {
		err = fmt.Errorf("a parenthesis is not closed")
	}
	p.depth--
	return ok, err
}

func (p *markerParser) comparison() (bool, error) {
	left, err := p.value()
	if err != nil {
		return false, err
	}
	op, err := p.operator()
	if err != nil {
		return false, err
	}
	right, err := p.value()
	if err != nil {
		return false, err
	}
	return compare(left, op, right, p.env)
}

func (p *markerParser) next() (token, error) {
	if len(p.tokens) == 0 {
		return token{}, fmt.Errorf("it ends too early")
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t, nil
}

func (p *markerParser) value() (token, error) {
	t, err := p.next()
	if err == nil && t.kind == symbol {
		err = fmt.Errorf("%q stands where a value should", t.text)
	}
	return t, err
}

func (p *markerParser) operator() (string, error) {
	t, err := p.next()
	if err != nil {
		return "", err
	}
	switch {
	case t == token{word, "not"} && p.take(word, "in"):
		return "not in", nil
	case t == token{word, "in"}, t.kind == symbol && t.text != "(" && t.text != ")":
		return t.text, nil
	}
	return "", fmt.Errorf("%q is no operator", t.text)
}
