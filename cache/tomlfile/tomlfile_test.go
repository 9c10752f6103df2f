package tomlfile_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/tomlfile"
)

func TestDecode(t *testing.T) {
	var c struct {
		Name  string `toml:"name"`
		Table struct {
			Size int `toml:"size"`
		} `toml:"table"`
	}
	require.NoError(t, tomlfile.Decode([]byte("name = 'x'\n[table]\nsize = 3\n"), &c))
	require.Equal(t, "x", c.Name)
	require.Equal(t, 3, c.Table.Size)
	for content, want := range map[string]string{
		"nam = 'x'\n\n[table]\nsise = 3\n": `line 1: there is no key "nam"; line 4: there is no key "table.sise"`,
		"name = 'x'\nname = ":              "line 2, column ",
		"name = 'x'\n[table]\nsize = 'y'":  "line 3, column ",
	} {
		require.ErrorContains(t, tomlfile.Decode([]byte(content), &c), want, content)
	}
}
