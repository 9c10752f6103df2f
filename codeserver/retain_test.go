package codeserver

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDropOld says which versions are kept. In the names a capital is a current version, "!" follows one that has failed and "+" one
// that has a process.
func TestDropOld(t *testing.T) {
	for _, c := range []struct{ all, previous, want string }{
		{"A b c d", "b", "A b c"},
		{"A b c d+ e", "b", "A b c d+"},
		{"A b! c! d! e f g", "e", "A b! c! e f"},
		{"A b! c! d!+ e! f", "f", "A b! c! d!+ f"},
		{"b! c! A d e f", "d", "b! c! A d e"},
		{"A b c d e", "e", "A b c e"},
		{"A A! b c", "b", "A b c"},
		{"A a+ a b c", "b", "A a+ b c"},
		{"A b! b! c! d!", "", "A b! c!"},
	} {
		l, of := &location{}, map[*version]string{}
		for word := range strings.FieldsSeq(c.all) {
			v := &version{name: strings.ToLower(strings.TrimRight(word, "!+"))}
			if strings.Contains(word, "!") {
				v.failed = "it ended"
			}
			if strings.Contains(word, "+") {
				v.running = &running{}
			}
			if word[0] < 'a' && l.current == nil {
				l.current = v
			}
			if word == c.previous {
				l.previous = v
			}
			l.versions, of[v] = append(l.versions, v), word
		}
		l.dropOld(3)
		var kept []string
		for _, v := range l.versions {
			kept = append(kept, of[v])
		}
		require.Equal(t, c.want, strings.Join(kept, " "), c.all)
	}
}
