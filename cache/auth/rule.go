package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pexpress/pexpress/cache/lazy"
)

// Rule turns the claims of a token into a principal.
type Rule struct {
	// Claims must all be there with these values, in which * stands for any characters. A claim that is a list fits if one
	// of its elements does.
	Claims map[string]string `toml:"claims"`
	// Principal is the name, in which {claim} stands for a claim's value.
	Principal string `toml:"principal"`
}

var inBraces = lazy.Regexp(`\{[^{}]*\}`)

// rules returns the issuer's rules, or the one that stands for none.
func (i Issuer) rules() []Rule {
	if len(i.Rules) == 0 {
		return []Rule{{Principal: "{iss}#{sub}"}}
	}
	return i.Rules
}

// shape returns the principals that a rule of an issuer may name, as parts between which any text may stand.
func (r Rule) shape(issuer string) []string {
	return inBraces().Split(strings.ReplaceAll(r.Principal, "{iss}", issuer), -1)
}

// meet reports whether two shapes may be of one name. What stands between their first and last parts is not looked at: that
// refuses too much rather than too little.
func meet(a, b []string) bool {
	if len(a) == 1 {
		a, b = b, a
	}
	if len(b) == 1 { // a text, and a text or a pattern
		return glob(strings.Join(a, "*"), b[0])
	}
	begin, end := a[0], a[len(a)-1]
	other, otherEnd := b[0], b[len(b)-1]
	return (strings.HasPrefix(begin, other) || strings.HasPrefix(other, begin)) &&
		(strings.HasSuffix(end, otherEnd) || strings.HasSuffix(otherEnd, end))
}

func (r Rule) check() error {
	if r.Principal == "" {
		return errors.New("a rule names no principal")
	}
	return nil
}

// principal returns the name that the first fitting rule gives.
func principal(rules []Rule, claims map[string]any) (string, error) {
	for _, r := range rules {
		if r.fits(claims) {
			return r.name(claims)
		}
	}
	return "", errors.New("no rule of the configuration fits the token's claims")
}

func (r Rule) fits(claims map[string]any) bool {
	for name, pattern := range r.Claims {
		found := false
		for _, v := range values(claims[name]) {
			found = found || glob(pattern, v)
		}
		if !found {
			return false
		}
	}
	return true
}

func (r Rule) name(claims map[string]any) (string, error) {
	var err error
	name := inBraces().ReplaceAllStringFunc(r.Principal, func(s string) string {
		vs := values(claims[s[1:len(s)-1]])
		if len(vs) != 1 || vs[0] == "" {
			err = fmt.Errorf("the principal %q needs the claim %s, and the token has not one value for it", r.Principal, s)
			return ""
		}
		return vs[0]
	})
	return name, err
}

// values returns a claim's values as text.
func values(claim any) []string {
	switch v := claim.(type) {
	case string:
		return []string{v}
	case bool:
		return []string{strconv.FormatBool(v)}
	case float64:
		b, err := json.Marshal(v)
		if err != nil {
			return nil
		}
		return []string{string(b)}
	case []any:
		var vs []string
		for _, e := range v {
			vs = append(vs, values(e)...)
		}
		return vs
	}
	return nil
}
