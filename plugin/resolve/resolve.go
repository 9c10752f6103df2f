// Package resolve makes locks: it runs the pinned uv, which comes out of its wheel like any other dependency, on what a
// project says it requires, and returns a pylock.toml (PEP 751).
package resolve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/plugin/fetch"
)

// ErrResolve is wrapped by the error for requirements that cannot be resolved; uv has said why on Stderr.
var ErrResolve = errors.New("cannot be locked")

// ErrNoInputs is wrapped by the error for a directory that says nothing of requirements.
var ErrNoInputs = fmt.Errorf("%w", ErrResolve)

// Request says what to lock.
type Request struct {
	// Dir is the project's directory; Inputs are files in it that name requirements. Without any the project's own are
	// taken: uv.lock, pyproject.toml, requirements.txt, setup.cfg or setup.py, the first that is there.
	Dir    string
	Inputs []string
	// Output is the lock, relative to Dir: versions in it are kept unless Upgrade is set. It is read, not written.
	Output  string
	Upgrade bool
	// Python is the version to lock for, such as "3.11"; what uv finds, to the patch release, if empty.
	Python string
	// Platforms are the platform tags to lock for. For one the lock holds what that one needs; for several, or one that
	// uv does not know, it holds for all.
	Platforms      []string
	Extras, Groups []string

	Fetcher  *fetch.Fetcher
	StateDir string
	Stderr   io.Writer
}

// Lock resolves the requirements and returns the lock's content.
func Lock(ctx context.Context, r Request) ([]byte, error) {
	inputs, err := r.inputs()
	if err != nil {
		return nil, err
	}
	if err := r.checkBuildable(inputs); err != nil {
		return nil, err
	}
	uv, err := tool(ctx, r.Fetcher, r.StateDir)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(r.StateDir, ".lock*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "pylock.toml")
	if err := r.keepVersions(out); err != nil {
		return nil, err
	}
	args := r.compileArgs(inputs, out)
	if filepath.Base(inputs[0]) == "uv.lock" {
		args = r.exportArgs(filepath.Dir(inputs[0]), out)
	}
	if err := run(ctx, uv, r, args); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return relocate(content, dir, r.Dir)
}

// keepVersions gives uv the present lock, whose versions it prefers.
func (r *Request) keepVersions(out string) error {
	if r.Upgrade || r.Output == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(r.Dir, r.Output))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(out, b, 0o600)
}

func (r *Request) compileArgs(inputs []string, out string) []string {
	args := []string{"pip", "compile", "--quiet", "--format", "pylock.toml", "--output-file", out, "--no-header"}
	if r.Python != "" {
		args = append(args, "--python-version", r.Python)
	}
	if platform := uvPlatform(r.Platforms); platform != "" {
		args = append(args, "--python-platform", platform)
	} else {
		args = append(args, "--universal")
	}
	if filepath.Base(inputs[0]) != "requirements.txt" {
		for _, e := range r.Extras {
			args = append(args, "--extra", e)
		}
		for _, g := range r.Groups {
			args = append(args, "--group", g)
		}
	}
	if r.Upgrade {
		args = append(args, "--upgrade")
	}
	return append(args, inputs...)
}

// exportArgs turns the uv.lock in the directory project into a pylock.toml, without resolving anew unless asked.
func (r *Request) exportArgs(project, out string) []string {
	args := []string{"export", "--project", project, "--quiet", "--format", "pylock.toml", "--output-file", out, "--no-header", "--no-default-groups"}
	if r.Upgrade {
		args = append(args, "--upgrade")
	} else {
		args = append(args, "--locked")
	}
	for _, e := range r.Extras {
		args = append(args, "--extra", e)
	}
	for _, g := range r.Groups {
		args = append(args, "--group", g)
	}
	return args
}

var manylinux = lazy.Regexp(`^manylinux_(2_[0-9]+)_(x86_64|aarch64)$`)

// uvPlatform returns uv's name for the only platform, "" if there are several or uv has none.
func uvPlatform(platforms []string) string {
	if len(platforms) != 1 {
		return ""
	}
	if m := manylinux().FindStringSubmatch(platforms[0]); m != nil {
		switch m[1] {
		case "2_17", "2_28", "2_31", "2_32", "2_33", "2_34", "2_35", "2_36", "2_37", "2_38", "2_39", "2_40":
			return m[2] + "-manylinux_" + m[1]
		}
	}
	return ""
}

// run runs uv in the project's directory, with the settings of pip's that uv does not read itself.
func run(ctx context.Context, uv string, r Request, args []string) error {
	cmd := exec.CommandContext(ctx, uv, append(args, r.Fetcher.UVArgs()...)...)
	cmd.Dir = r.Dir
	cmd.Env = append(os.Environ(), r.Fetcher.UVEnv()...)
	cmd.Stderr = r.Stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%w: uv ended with status %d; what it says is above", ErrResolve, exit.ExitCode())
	}
	if err != nil {
		return fmt.Errorf("run uv: %w", err)
	}
	return nil
}
