package project

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/lazy"
)

// An Output is a tree that a plugin makes of files of the project. Versions have it beside the two PEXes.
type Output struct {
	Name string
	// Plugin is the NAME of a pexpress-plugin-NAME, or a path below the project's directory. Kind is what it is to make; empty if
	// it makes one kind only.
	Plugin, Kind string
	// Inputs are files and directories below the project's, with slashes.
	Inputs []string
}

// outputName is what a codeserver accepts.
var outputName = lazy.Regexp(`^[a-z0-9][a-z0-9-]{0,63}$`)

// readOutputs reads [tool.pexpress.output.NAME].
func readOutputs(t *table) (outputs []Output) {
	if t == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(t.m)) {
		if !outputName().MatchString(name) {
			t.errorf(name, "is no name for an output: 1 to 64 lower-case letters, digits and hyphens")
		}
		sub := t.sub(name)
		if sub == nil {
			continue
		}
		o := Output{Name: name, Plugin: sub.string("plugin"), Kind: sub.string("kind")}
		if o.Plugin == "" {
			sub.errorf("plugin", "must say which plugin makes the output")
		}
		if strings.Contains(o.Plugin, "/") && !filepath.IsLocal(filepath.FromSlash(o.Plugin)) {
			sub.errorf("plugin", "must be the NAME of a pexpress-plugin-NAME or a path inside the project, it is %q", o.Plugin)
		}
		for _, in := range sub.strings("inputs") {
			if !filepath.IsLocal(filepath.FromSlash(in)) {
				sub.errorf("inputs", "must lie inside the project, %q does not", in)
			}
			o.Inputs = append(o.Inputs, path.Clean(in))
		}
		if len(o.Inputs) == 0 {
			sub.errorf("inputs", "must name the files and directories that the output is made of")
		}
		sub.done()
		outputs = append(outputs, o)
	}
	return outputs
}

// OutputFiles returns the files of an output's inputs, in order of path, by their paths below the project's directory. Of a
// directory it takes what source.pex would, whatever include and exclude say.
func (p *Project) OutputFiles(ctx context.Context, o Output) ([]SourceFile, []string, error) {
	var files []SourceFile
	var warnings []string
	for _, in := range o.Inputs {
		abs := filepath.Join(p.Dir, filepath.FromSlash(in))
		st, err := os.Lstat(abs)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("output %s: %w", o.Name, err)
		case st.Mode().IsRegular():
			files = append(files, SourceFile{Path: in, Abs: abs})
			continue
		case !st.IsDir():
			return nil, nil, fmt.Errorf("output %s: %s is neither a file nor a directory", o.Name, abs)
		}
		prefix := in + "/"
		if in == "." {
			prefix = ""
		}
		all, err := walk(ctx, abs, p.Dir, prefix, newFilter(nil, nil, nil))
		if err != nil {
			return nil, nil, fmt.Errorf("output %s: %w", o.Name, err)
		}
		if len(all.links) > 0 {
			return nil, nil, fmt.Errorf("output %s: %s is a symlink, which an input cannot be: name the file it leads to", o.Name, all.links[0])
		}
		files, warnings = append(files, all.files...), append(warnings, all.warnings...)
	}
	slices.SortFunc(files, func(a, b SourceFile) int { return strings.Compare(a.Path, b.Path) })
	return slices.CompactFunc(files, func(a, b SourceFile) bool { return a.Path == b.Path }), warnings, nil
}
