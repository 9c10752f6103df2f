package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pexpress/pexpress/plugin/fetch"
)

// binary is the pexpress under test. It is built as users build it, since it starts itself again as builder and sandbox.
var binary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pexpress-test")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "pexpress")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	// The tester's own cache and codeserver are not for tests.
	for _, name := range []string{"PEXPRESS_CACHE", "PEXPRESS_CODESERVER", "PEXPRESS_HOME"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	if err := pinnedWheels(filepath.Join(dir, "pinned")); err != nil {
		panic(err)
	}
	return m.Run()
}

// pinnedWheels downloads the wheel that every first build needs, once, and has pip find it there: the tests build in
// many empty caches.
func pinnedWheels(dir string) error {
	requirement := fmt.Sprintf("%s==%s", fetch.PexPin.Project, fetch.PexPin.Version)
	out, err := exec.Command("python3", "-m", "pip", "download", "-q", "--no-deps", "-d", dir, requirement).CombinedOutput()
	if err != nil {
		return fmt.Errorf("download %s: %w: %s", requirement, err, out)
	}
	return errors.Join(os.Setenv("PIP_FIND_LINKS", dir), os.Setenv("PIP_NO_INDEX", "1"))
}

// TestScript runs the command line as users do, one process a command; testdata/script holds the scripts.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PEXPRESS_HOME", filepath.Join(env.WorkDir, ".home"))
			env.Setenv("PATH", filepath.Dir(binary)+":"+os.Getenv("PATH"))
			// The pinned pex wheel comes through the tester's own configuration of pip, as it does for a user.
			for _, name := range []string{"HOME", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PYENV_ROOT"} {
				env.Setenv(name, os.Getenv(name))
			}
			for _, kv := range os.Environ() {
				if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "PIP_") || strings.HasPrefix(name, "UV_") {
					env.Setenv(name, value)
				}
			}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"wheel":    cmdWheel,
			"lock":     cmdLock,
			"fails":    cmdFails,
			"corrupt":  cmdCorrupt,
			"truncate": cmdTruncate,
		},
	})
}

// cmdWheel makes a wheel in wheels/: wheel NAME VERSION [TAG] [MEMBER=CONTENT...]. Its one module says its version.
func cmdWheel(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: wheel NAME VERSION [TAG] [MEMBER=CONTENT...]")
	}
	tag := "py3-none-any"
	rest := args[2:]
	if len(rest) > 0 && !strings.Contains(rest[0], "=") {
		tag, rest = rest[0], rest[1:]
	}
	members := map[string]string{args[0] + "/__init__.py": fmt.Sprintf("VERSION = %q\n", args[1])}
	for _, m := range rest {
		name, content, _ := strings.Cut(m, "=")
		members[name] = content
	}
	b, err := makeWheel(args[0], args[1], tag, members)
	ts.Check(err)
	ts.Check(os.MkdirAll(ts.MkAbs("wheels"), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(fmt.Sprintf("wheels/%s-%s-%s.whl", args[0], args[1], tag)), b, 0o644))
}

// makeWheel returns a valid wheel (PEP 427) with the given members; the same arguments give the same bytes.
func makeWheel(name, version, tag string, members map[string]string) ([]byte, error) {
	info := fmt.Sprintf("%s-%s.dist-info/", name, version)
	members[info+"METADATA"] = fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version)
	members[info+"WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: " + tag + "\n"
	var names []string
	for n := range members {
		names = append(names, n)
	}
	sort.Strings(names)
	var record strings.Builder
	for _, n := range names {
		sum := sha256.Sum256([]byte(members[n]))
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", n, base64.RawURLEncoding.EncodeToString(sum[:]), len(members[n]))
	}
	members[info+"RECORD"] = record.String() + info + "RECORD,,\n"
	names = append(names, info+"RECORD")
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, n := range names {
		w, err := z.CreateHeader(&zip.FileHeader{Name: n, Method: zip.Deflate, Modified: time.Unix(1e9, 0)})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(members[n])); err != nil {
			return nil, err
		}
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// cmdLock writes a pylock.toml for all of wheels/: lock [FILE].
func cmdLock(ts *testscript.TestScript, _ bool, args []string) {
	out := "pylock.toml"
	if len(args) > 0 {
		out = args[0]
	}
	files, err := filepath.Glob(ts.MkAbs("wheels/*.whl"))
	ts.Check(err)
	wheels := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		ts.Check(err)
		wheels["wheels/"+filepath.Base(f)] = b
	}
	ts.Check(os.WriteFile(ts.MkAbs(out), []byte(lockOf(wheels)), 0o644))
}

// lockOf returns a pylock.toml (PEP 751) of wheels that lie beside it, by their paths.
func lockOf(wheels map[string][]byte) string {
	packages := map[string][]string{}
	for path := range wheels {
		parts := strings.SplitN(filepath.Base(path), "-", 3)
		key := parts[0] + "-" + parts[1]
		packages[key] = append(packages[key], path)
	}
	lock := "lock-version = \"1.0\"\ncreated-by = \"test\"\nrequires-python = \">=3.11\"\n"
	for _, key := range slices.Sorted(maps.Keys(packages)) {
		name, version, _ := strings.Cut(key, "-")
		lock += fmt.Sprintf("\n[[packages]]\nname = %q\nversion = %q\nwheels = [\n", name, version)
		for _, path := range slices.Sorted(slices.Values(packages[key])) {
			sum := sha256.Sum256(wheels[path])
			lock += fmt.Sprintf("  { name = %q, path = %q, size = %d, hashes = { sha256 = %q } },\n",
				filepath.Base(path), path, len(wheels[path]), hex.EncodeToString(sum[:]))
		}
		lock += "]\n"
	}
	return lock
}

// cmdFails runs a program that must end with an exit status: fails STATUS PROGRAM [ARGUMENT...].
func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails STATUS PROGRAM [ARGUMENT...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("want exit status %s, got %v", args[0], err)
	}
	if got := fmt.Sprint(exit.ExitCode()); got != args[0] {
		ts.Fatalf("want exit status %s, got %s", args[0], got)
	}
}

// cmdCorrupt flips a byte in the middle of each file that matches the pattern: corrupt PATTERN.
func cmdCorrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: corrupt PATTERN")
	}
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("corrupt: nothing matches %s", args[0])
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		ts.Check(err)
		if len(b) == 0 {
			continue
		}
		b[len(b)/2] ^= 0xff
		ts.Check(os.Chmod(f, 0o644))
		ts.Check(os.WriteFile(f, b, 0o644))
	}
}

// cmdTruncate cuts a file: truncate FILE N.
func cmdTruncate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: truncate FILE BYTES")
	}
	var n int64
	_, err := fmt.Sscan(args[1], &n)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), n))
}
