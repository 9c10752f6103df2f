package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/pex"
)

// ZipappRequest says what to put into one file, and what it runs: nothing in particular, a module ("pkg.mod" or
// "pkg.mod:function"), or a console script of the wheels.
type ZipappRequest struct {
	Deps, Source   string
	Module, Script string
	// Interpreter is a path for the file's first line; empty leaves the choice to PATH.
	Interpreter string
	// Test keeps what pex unpacks below $TEST_TMPDIR, if that is set: a test may write nowhere else.
	Test bool
}

var (
	moduleName = lazy.Regexp(`^[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?$`)
	scriptName = lazy.Regexp(`^[\w][\w.-]*$`)
	pythonPath = lazy.Regexp(`^/[^\s"\\]{1,120}$`)
)

// Zipapp writes one executable file with the wheels of deps.pex and the files of source.pex, as `pexpress export` does.
func Zipapp(ctx context.Context, r ZipappRequest, out string) error {
	cas := newStore()
	deps, err := cas.read(ctx, r.Deps)
	if err != nil {
		return err
	}
	source, err := cas.read(ctx, r.Source)
	if err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	if source, err = cas.withEntry(ctx, source, r); err != nil {
		return err
	}
	return pex.Export(ctx, cas, pex.Trees{Deps: deps.Root(), Source: source.Root()}, "zipapp", out)
}

func (r *ZipappRequest) check() error {
	switch {
	case r.Module != "" && r.Script != "":
		return fmt.Errorf("%w: a zipapp runs a module or a script, not both", ErrInput)
	case r.Module != "" && !moduleName().MatchString(r.Module):
		return fmt.Errorf("%w: %q is not a module such as pkg.mod, nor one with a function, pkg.mod:main", ErrInput, r.Module)
	case r.Script != "" && !scriptName().MatchString(r.Script):
		return fmt.Errorf("%w: %q is not the name of a script", ErrInput, r.Script)
	case r.Interpreter != "" && !pythonPath().MatchString(r.Interpreter):
		return fmt.Errorf("%w: %q is not the absolute path of an interpreter that a first line can hold", ErrInput, r.Interpreter)
	}
	return nil
}

// withEntry returns a source tree whose __main__.py asks pex's runtime for the entry point, unless the environment asks
// for another. PEX-INFO says it, too: pex unpacks a zipapp below a name that follows from PEX-INFO alone.
func (s *store) withEntry(ctx context.Context, source *merkle.Tree, r ZipappRequest) (*merkle.Tree, error) {
	if r.Module+r.Script+r.Interpreter == "" && !r.Test {
		return source, nil
	}
	var b merkle.Builder
	for name, d := range source.Files() {
		if name == "__main__.py" || name == "PEX-INFO" {
			content, err := cache.ReadBlob(ctx, s, d, 16<<20)
			if err != nil {
				return nil, err
			}
			if name == "PEX-INFO" {
				content, err = infoWithEntry(content, r)
			} else {
				content = mainWithEntry(content, r)
			}
			if err != nil {
				return nil, err
			}
			d = digest.FromBytes(content)
			if err := s.Put(ctx, d, bytes.NewReader(content)); err != nil {
				return nil, err
			}
		}
		if err := b.File(name, d); err != nil {
			return nil, err
		}
	}
	for name, target := range source.Symlinks() {
		if err := b.Symlink(name, target); err != nil {
			return nil, err
		}
	}
	t, err := b.Build()
	if err != nil {
		return nil, err
	}
	return t, t.Put(ctx, s)
}

func infoWithEntry(content []byte, r ZipappRequest) ([]byte, error) {
	var info pex.Info
	if err := json.Unmarshal(content, &info); err != nil {
		return nil, fmt.Errorf("%w: PEX-INFO: %w", ErrInput, err)
	}
	if info.BuildProperties == nil {
		info.BuildProperties = map[string]any{}
	}
	info.BuildProperties["pexpress_entry_point"] = []string{r.Module, r.Script, r.Interpreter}
	return json.Marshal(info)
}

// mainWithEntry puts lines after the shebang. Names hold neither quotes nor backslashes: see check.
func mainWithEntry(main []byte, r ZipappRequest) []byte {
	head, rest, _ := bytes.Cut(main, []byte("\n"))
	var b bytes.Buffer
	if r.Interpreter != "" {
		head = []byte("#!" + r.Interpreter)
	}
	fmt.Fprintf(&b, "%s\nimport os\n\n", head)
	if r.Module != "" {
		fmt.Fprintf(&b, "os.environ.setdefault(\"PEX_MODULE\", \"%s\")\n", r.Module)
	}
	if r.Script != "" {
		fmt.Fprintf(&b, "os.environ.setdefault(\"PEX_SCRIPT\", \"%s\")\n", r.Script)
	}
	if r.Test {
		b.WriteString("if \"TEST_TMPDIR\" in os.environ:\n    os.environ.setdefault(\"PEX_ROOT\", os.environ[\"TEST_TMPDIR\"] + \"/pex\")\n")
	}
	b.Write(rest)
	return b.Bytes()
}
