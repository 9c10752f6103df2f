package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/pexpress/pexpress/"

// forbidden lists imports that would make the layers of the README's Architecture section untrue. A name stands for
// the package and all below it; the command lines' mains may use a client of another part.
var forbidden = []struct {
	from, to string
	except   []string
}{
	{from: "cache", to: "plugin"},
	{from: "cache", to: "codeserver"},
	{from: "codeserver", to: "plugin"},
	{from: "plugin", to: "codeserver", except: []string{"plugin/cmd/pexpress"}},
	{from: "cache/digest", to: "cache/merkle"},
	{from: "cache/merkle", to: "cache/disk"},
	{from: "cache/merkle", to: "cache/remote"},
	{from: "plugin/action", to: "plugin/pex"},
	{from: "plugin/lock", to: "plugin/fetch"},
	{from: "codeserver/loader", to: "codeserver/worker"},
	{from: "codeserver/venv", to: "codeserver/worker"},
	{from: "codeserver/proxy", to: "cache"},
}

// pure names packages whose results must follow from their arguments alone, and all that they may import.
var pure = map[string][]string{
	"plugin/action": {
		"bytes", "cmp", "context", "encoding/json", "errors", "fmt", "iter", "maps", "slices", "strings",
		"github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2", "cache", "cache/digest", "cache/merkle",
	},
	"plugin/lock": {
		"bytes", "cmp", "errors", "fmt", "iter", "maps", "math", "net/url", "path", "regexp", "slices", "strconv", "strings", "unicode",
		"github.com/aquasecurity/go-pep440-version", "github.com/pelletier/go-toml/v2", "cache/lazy",
	},
}

func TestLayers(t *testing.T) {
	packages := imports(t)
	require.Greater(t, len(packages), 15, "go list must see the whole module")
	for pkg, deps := range packages {
		for _, dep := range deps {
			for _, rule := range forbidden {
				if below(pkg, rule.from) && below(dep, rule.to) && !slices.Contains(rule.except, pkg) {
					t.Errorf("%s imports %s: %s must not import %s", pkg, dep, rule.from, rule.to)
				}
			}
			if allowed, ok := pure[pkg]; ok && !slices.Contains(allowed, dep) {
				t.Errorf("%s imports %s: planning is pure, and only %q are known to be", pkg, dep, allowed)
			}
		}
	}
}

// below reports whether pkg is the package name or lies under it.
func below(pkg, name string) bool { return pkg == name || strings.HasPrefix(pkg, name+"/") }

// imports returns the direct imports of each package of the module, names of the module's own relative to it.
func imports(t *testing.T) map[string][]string {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	cmd.Dir = "../../.."
	out, err := cmd.Output()
	require.NoError(t, err)
	packages := map[string][]string{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		require.NoError(t, err)
		for _, i := range p.Imports {
			packages[strings.TrimPrefix(p.ImportPath, module)] = append(packages[strings.TrimPrefix(p.ImportPath, module)],
				strings.TrimPrefix(i, module))
		}
	}
}
