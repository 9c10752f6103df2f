package examples

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAlone sees that no test which make test-clients leaves out, because make test has run it, needs a client.
func TestAlone(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	require.NoError(t, err)
	found := regexp.MustCompile(`(?m)^ALONE := (.*)$`).FindSubmatch(makefile)
	require.NotNil(t, found)
	alone := regexp.MustCompile(string(found[1]))

	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	calls := map[string][]string{} // by function or method
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				switch callee := call.Fun.(type) {
				case *ast.Ident:
					calls[fn.Name.Name] = append(calls[fn.Name.Name], callee.Name)
				case *ast.SelectorExpr:
					calls[fn.Name.Name] = append(calls[fn.Name.Name], callee.Sel.Name)
				}
				return true
			})
		}
	}
	var needs func(name string, seen map[string]bool) bool
	needs = func(name string, seen map[string]bool) bool {
		if name == "clients" || seen[name] {
			return name == "clients"
		}
		seen[name] = true
		for _, callee := range calls[name] {
			if needs(callee, seen) {
				return true
			}
		}
		return false
	}
	left := 0
	for name := range calls {
		if alone.MatchString(name) {
			left++
			require.False(t, needs(name, map[string]bool{}), "%s needs a client", name)
		}
	}
	require.Greater(t, left, 20)
	require.True(t, needs("TestDagster", map[string]bool{}))
}
