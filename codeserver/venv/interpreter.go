package venv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Interpreter is a CPython installed on this host, never that of a virtual environment.
type Interpreter struct {
	Path        string // the real path of its executable
	Version     string // as in file names: 3.11
	FullVersion string // 3.11.7
	Prefix      string // sys.base_prefix
	Tag         string // as in names of bytecode files: cpython-311
	Magic       string // what its bytecode files begin with, in hex
}

// probeTimeout bounds the start of one interpreter; a cold one on a slow disk takes seconds.
const probeTimeout = 30 * time.Second

// probe prints what Interpreter needs. It runs isolated and without site, so that nothing of the user's runs or prints.
const probe = `import json, sys
import _frozen_importlib_external as external
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": "%d.%d" % sys.version_info[:2],
    "full": sys.version.split()[0],
    "base": getattr(sys, "_base_executable", None) or sys.executable,
    "prefix": sys.base_prefix,
    "tag": sys.implementation.cache_tag or "",
    "magic": external.MAGIC_NUMBER.hex(),
}))`

type probed struct {
	Implementation, Version, Full, Base, Prefix, Tag, Magic string
}

// Find returns the CPython of a version such as 3.11: the first one in PATH, else the newest one that pyenv has.
func Find(ctx context.Context, version string) (*Interpreter, error) {
	if !minor.MatchString(version) {
		return nil, fmt.Errorf("find Python: %q is not a version such as 3.11", version)
	}
	var tried []error
	for _, path := range candidates(version) {
		py, err := inspect(ctx, path, version)
		if err == nil {
			return py, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		tried = append(tried, err)
	}
	err := fmt.Errorf("no CPython %[1]s on this host: looked for python%[1]s in PATH and in %[2]s; install CPython %[1]s", version, pyenvVersions())
	return nil, errors.Join(append([]error{err}, tried...)...)
}

// candidates lists executables that by their names may be the version.
func candidates(version string) []string {
	var found []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) {
			found = append(found, filepath.Join(dir, "python"+version))
		}
	}
	installed, _ := os.ReadDir(pyenvVersions())
	var patches []string
	for _, e := range installed {
		if strings.HasPrefix(e.Name(), version+".") {
			patches = append(patches, e.Name())
		}
	}
	slices.SortFunc(patches, func(a, b string) int { return cmp.Compare(patch(b), patch(a)) })
	for _, p := range patches {
		found = append(found, filepath.Join(pyenvVersions(), p, "bin", "python"+version))
	}
	return slices.DeleteFunc(found, func(path string) bool {
		st, err := os.Stat(path)
		return err != nil || st.IsDir() || st.Mode()&0o111 == 0
	})
}

// patch is the last number of a version, -1 for one that is no number, such as that of a release candidate.
func patch(version string) int {
	n, err := strconv.Atoi(version[strings.LastIndexByte(version, '.')+1:])
	if err != nil {
		return -1
	}
	return n
}

func pyenvVersions() string {
	root := os.Getenv("PYENV_ROOT")
	if root == "" {
		home, _ := os.UserHomeDir()
		root = filepath.Join(home, ".pyenv")
	}
	return filepath.Join(root, "versions")
}

// inspect returns the base interpreter behind path, which may be a shim or belong to a virtual environment.
func inspect(ctx context.Context, path, version string) (*Interpreter, error) {
	p, err := ask(ctx, path, version)
	if err != nil {
		return nil, err
	}
	base, err := filepath.EvalSymlinks(p.Base)
	if err != nil {
		return nil, fmt.Errorf("%s: its base interpreter: %w", path, err)
	}
	if base != path {
		if p, err = ask(ctx, base, version); err != nil {
			return nil, fmt.Errorf("%s: its base interpreter: %w", path, err)
		}
	}
	return &Interpreter{Path: base, Version: version, FullVersion: p.Full, Prefix: p.Prefix, Tag: p.Tag, Magic: p.Magic}, nil
}

func ask(ctx context.Context, path, version string) (probed, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-I", "-S", "-c", probe)
	cmd.WaitDelay = time.Second // a shim's child may hold the pipe open
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return probed{}, fmt.Errorf("%s: %w: %s", path, err, lastLine(stderr.String()))
	}
	var p probed
	if err := json.Unmarshal(out, &p); err != nil {
		return probed{}, fmt.Errorf("%s: does not behave like Python: %w", path, err)
	}
	if p.Implementation != "cpython" || p.Version != version || p.Base == "" {
		return probed{}, fmt.Errorf("%s: is %s %s, not CPython %s", path, p.Implementation, p.Version, version)
	}
	return p, nil
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
