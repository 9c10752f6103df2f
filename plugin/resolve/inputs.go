package resolve

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/pexpress/pexpress/cache/lazy"
)

// inputs returns the files to read requirements from.
func (r *Request) inputs() ([]string, error) {
	for _, in := range r.Inputs {
		if _, err := os.Stat(filepath.Join(r.Dir, in)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrResolve, err)
		}
	}
	if len(r.Inputs) > 0 {
		return r.Inputs, nil
	}
	for _, name := range []string{"uv.lock", "pyproject.toml", "requirements.txt", "setup.cfg", "setup.py"} {
		if r.has(name) && (describes[name] == nil || r.matches(name, describes[name]())) {
			return append([]string{name}, r.beside(name)...), nil
		}
	}
	return nil, fmt.Errorf("%w: %s has no uv.lock, no pyproject.toml with a [project] or [tool.poetry], no requirements.txt, setup.cfg or setup.py: name a file with requirements",
		ErrNoInputs, r.Dir)
}

// beside returns what belongs to a requirements.txt that is there without a pyproject.toml: a setup.py or setup.cfg says
// what the project itself requires.
func (r *Request) beside(name string) []string {
	if name == "requirements.txt" && r.has("setup.py") {
		return []string{"setup.py"}
	}
	return nil
}

// describes finds what makes a file one that says what a project requires: those of only tools' settings say nothing.
var describes = map[string]func() *regexp.Regexp{
	"pyproject.toml": lazy.Regexp(`(?m)^\s*\[\s*(project|tool\s*\.\s*poetry)\b`),
	"setup.cfg":      lazy.Regexp(`(?m)^\[(metadata|options)\]`),
}

func (r *Request) has(name string) bool {
	_, err := os.Stat(filepath.Join(r.Dir, name))
	return err == nil
}

func (r *Request) matches(name string, what *regexp.Regexp) bool {
	b, err := os.ReadFile(filepath.Join(r.Dir, name))
	return err == nil && what.Match(b)
}

// checkBuildable says what to do about a setup.cfg on its own, which neither pip nor uv takes for a project.
func (r *Request) checkBuildable(inputs []string) error {
	dir, name := filepath.Split(inputs[0])
	if name != "setup.cfg" || r.has(dir+"setup.py") || r.has(dir+"pyproject.toml") {
		return nil
	}
	return fmt.Errorf("%w: a setup.cfg needs a pyproject.toml beside it: write into that\n\n[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"",
		ErrResolve)
}
