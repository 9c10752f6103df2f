package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	exported   = regexp.MustCompile(`(?m)^(\w+) = _\w+$`)
	definition = regexp.MustCompile(`(?ms)^(\w+) = (?:rule|repository_rule|provider|tag_class|module_extension)\((.*?)^\)`)
	sharedDict = regexp.MustCompile(`(?ms)^(_[A-Z]+) = \{(.*?)^\}`)
	macro      = regexp.MustCompile(`(?m)^def ([a-z]\w+)\(([^)]*)\):`)
	key        = regexp.MustCompile(`(?m)^ {4,8}"([a-z]\w*)": (?:attr\.|"|_\w+)`)
	parameter  = regexp.MustCompile(`\*{0,2}(\w+)(?: = [^,]+)?`)
)

// TestBazelDocumented requires a section of docs/bazel.md for every public symbol of rules/, which names each of its
// attributes, fields or parameters.
func TestBazelDocumented(t *testing.T) {
	members := map[string][]string{}
	files, err := filepath.Glob("../rules/private/*.bzl")
	require.NoError(t, err)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		text := string(b)
		for _, d := range sharedDict.FindAllStringSubmatch(text, -1) {
			text = strings.ReplaceAll(text, "attrs = "+d[1]+",", "attrs = {"+d[2]+"    },")
		}
		for _, d := range definition.FindAllStringSubmatch(text, -1) {
			members[d[1]] = []string{}
			for _, k := range key.FindAllStringSubmatch(d[2], -1) {
				members[d[1]] = append(members[d[1]], k[1])
			}
		}
		for _, m := range macro.FindAllStringSubmatch(text, -1) {
			for _, p := range parameter.FindAllStringSubmatch(m[2], -1) {
				members[m[1]] = append(members[m[1]], p[1])
			}
		}
	}
	sections := sectionsOf(t, "../docs/bazel.md")
	var symbols []string
	for _, file := range []string{"defs.bzl", "repositories.bzl", "extensions.bzl"} {
		b, err := os.ReadFile("../rules/" + file)
		require.NoError(t, err)
		for _, m := range exported.FindAllStringSubmatch(string(b), -1) {
			symbols = append(symbols, m[1])
		}
	}
	require.Greater(t, len(symbols), 20)
	total := 0
	for _, symbol := range symbols {
		require.Contains(t, sections, symbol, "docs/bazel.md has no section %s", symbol)
		require.Contains(t, members, symbol, "where is %s defined?", symbol)
		for _, m := range members[symbol] {
			total++
			require.Contains(t, sections[symbol], "`"+m+"`", "docs/bazel.md does not say what %s of %s is", m, symbol)
		}
	}
	require.Greater(t, total, 50)
	// The tags of the extension, which are no symbols.
	for tag, definition := range map[string]string{"lock": "_lock", "tool": "_tool", "interpreters": "_interpreters"} {
		require.Contains(t, sections["pexpress"], "`"+tag+"`")
		require.NotEmpty(t, members[definition])
		for _, m := range members[definition] {
			require.Contains(t, sections["pexpress"], "`"+m+"`", "tag %s", tag)
		}
	}
}

// sectionsOf returns the text below each third-level heading that names a symbol.
func sectionsOf(t *testing.T, path string) map[string]string {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	sections := map[string]string{}
	for i, part := range strings.Split(string(b), "\n### ") {
		if i == 0 {
			continue
		}
		heading, text, _ := strings.Cut(part, "\n")
		text, _, _ = strings.Cut(text, "\n## ")
		sections[strings.Trim(heading, "`")] = text
	}
	return sections
}
