package examples

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPantsRules runs the backend's own tests, with Pants' rule runner.
func TestPantsRules(t *testing.T) {
	python := filepath.Join(clients(t), "pants/bin/python")
	if _, err := os.Stat(python); os.IsNotExist(err) {
		t.Skip("needs Pants, and that Python 3.9")
	}
	wheels := t.TempDir()
	requirement, err := os.ReadFile("pants/3rdparty/pex/requirements.txt")
	require.NoError(t, err)
	writeTree(t, wheels, map[string]string{"requirements.txt": string(requirement)})
	client(t, wheels, nil, "python3", "-m", "pip", "download", "-q", "--no-deps", "-r", "requirements.txt")
	found, err := filepath.Glob(filepath.Join(wheels, "*.whl"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	env := []string{
		"PEXPRESS_BINARY=" + filepath.Join(bin, "pexpress"), "PEXPRESS_PEX_WHEEL=" + found[0], "PYTHONDONTWRITEBYTECODE=1",
	}
	said := client(t, "../rules/pants", env, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore")
	require.Regexp(t, `(?m)^[1-9]\d* passed in`, said)
}
