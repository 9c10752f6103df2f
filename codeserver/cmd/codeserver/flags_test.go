package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// TestFlagsAreDocumented: each flag of serve has a row in the documentation's table, and each row is of a flag.
func TestFlagsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../../docs/codeserver.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if row, ok := strings.CutPrefix(line, "| `--"); ok {
			name, _, _ := strings.Cut(row, "`")
			documented[name] = true
		}
	}
	serveCommand().Flags().VisitAll(func(f *pflag.Flag) {
		require.True(t, documented[f.Name], "docs/codeserver.md does not say what --%s is", f.Name)
		delete(documented, f.Name)
	})
	require.Empty(t, documented, "there are no such flags")
}
