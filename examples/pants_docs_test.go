package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// listTargets prints each of the backend's targets with its fields, and then its options.
const listTargets = `
import warnings
warnings.simplefilter("ignore")
from pants.engine.target import COMMON_TARGET_FIELDS
from pants.option.option_types import collect_options_info
from pexpress_pants import register
from pexpress_pants.subsystem import Pexpress
for target in register.target_types():
    print(target.alias, *(f.alias for f in target.core_fields if f not in COMMON_TARGET_FIELDS))
print("options", *(o.flag_names[0].lstrip("-").replace("-", "_") for o in collect_options_info(Pexpress)))
`

// TestPantsDocs asks the backend for its targets, fields and options: each has its line in docs/pants.md, below its target.
func TestPantsDocs(t *testing.T) {
	python := filepath.Join(clients(t), "pants/bin/python")
	if _, err := os.Stat(python); os.IsNotExist(err) {
		t.Skip("needs Pants, and that Python 3.9")
	}
	doc, err := os.ReadFile("../docs/pants.md")
	require.NoError(t, err)
	cmd := client(t, "../rules/pants", []string{"PYTHONPATH=.", "PYTHONDONTWRITEBYTECODE=1"}, python, "-c", listTargets)
	sections := 0
	for line := range strings.Lines(cmd) {
		words := strings.Fields(line)
		if len(words) < 2 || !strings.HasPrefix(words[0], "pexpress_") && words[0] != "options" {
			continue
		}
		sections++
		heading := "### " + words[0]
		if words[0] == "options" {
			heading = "## Options"
		}
		_, section, found := strings.Cut(string(doc), "\n"+heading+"\n")
		require.True(t, found, "docs/pants.md has no section %q", heading)
		section, _, _ = strings.Cut(section, "\n## ")
		section, _, _ = strings.Cut(section, "\n### ")
		for _, name := range words[1:] {
			row := regexp.MustCompile("(?m)^\\| [^|]*`" + name + "`[^|]* \\|")
			require.Regexp(t, row, section, "docs/pants.md, %s", heading)
		}
	}
	require.Equal(t, 4, sections, "%s", cmd)
}
