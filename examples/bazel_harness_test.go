package examples

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// shop is examples/bazel as a workspace, with WORKSPACE.example as it is, on a host with an output base of its own.
type shop struct {
	t         *testing.T
	workspace string
	root      string
	builds    int
}

// bazelStubs stand in for what Bazel 4.2.3 loads from the network for every build that resolves toolchains: rules of other
// languages, none of which is used.
var bazelStubs = map[string]map[string]string{
	"rules_cc": {"BUILD": "", "cc/BUILD": "", "cc/defs.bzl": natives("cc_binary", "cc_import", "cc_library", "cc_proto_library",
		"cc_test", "cc_toolchain", "cc_toolchain_suite")},
	"rules_java": {"BUILD": "", "java/BUILD": "", "java/defs.bzl": natives("java_binary", "java_import", "java_library",
		"java_package_configuration", "java_plugin", "java_runtime", "java_test", "java_toolchain")},
	"remote_coverage_tools": {"BUILD": `package(default_visibility = ["//visibility:public"])
[filegroup(name = n) for n in ["coverage_report_generator", "lcov_merger"]]
`},
}

func natives(names ...string) string {
	text := ""
	for _, n := range names {
		text += fmt.Sprintf("%[1]s = native.%[1]s\n", n)
	}
	return text
}

// shopLocks makes the locks of examples/bazel, once: their URLs are those of the index that the tester's pip knows.
var shopLocks = sync.OnceValues(func() (map[string]string, error) {
	dir, err := os.MkdirTemp(bin, "locks")
	if err != nil {
		return nil, err
	}
	project := filepath.Join(dir, "project")
	if err := os.CopyFS(project, os.DirFS("bazel")); err != nil {
		return nil, err
	}
	locks := map[string]string{}
	for name, requirements := range map[string]string{".": "requirements.txt", "tools/pex": "requirements.txt"} {
		cmd := exec.Command(filepath.Join(bin, "pexpress"), "-C", name, "lock", "--python", "3.9", requirements)
		cmd.Dir, cmd.Env = project, append(os.Environ(), "PEXPRESS_HOME="+filepath.Join(dir, "home"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		lock := filepath.Join(name, "pylock.toml")
		content, err := os.ReadFile(filepath.Join(project, lock))
		if err != nil {
			return nil, err
		}
		locks[lock] = string(content)
	}
	return locks, nil
})

func newShop(t *testing.T) *shop {
	clients(t)
	if _, err := exec.LookPath("bazel"); err != nil {
		t.Skip("needs Bazel: apt-get install bazel-bootstrap")
	}
	locks, err := shopLocks()
	require.NoError(t, err)
	dir := t.TempDir()
	s := &shop{t: t, workspace: filepath.Join(dir, "examples/bazel")}
	require.NoError(t, os.CopyFS(s.workspace, os.DirFS("bazel")))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "rules"), os.DirFS("../rules")))
	example, err := os.ReadFile("../WORKSPACE.example")
	require.NoError(t, err)
	writeTree(t, s.workspace, locks)
	writeTree(t, s.workspace, map[string]string{"WORKSPACE": string(example)})
	for name, files := range bazelStubs {
		writeTree(t, filepath.Join(dir, "stubs", name), files)
		writeTree(t, filepath.Join(dir, "stubs", name), map[string]string{"WORKSPACE": fmt.Sprintf("workspace(name = %q)\n", name)})
	}
	return s.elsewhere()
}

// elsewhere is the same workspace on a host that has built nothing yet.
func (s *shop) elsewhere() *shop {
	other := &shop{t: s.t, workspace: s.workspace, root: s.t.TempDir()}
	// What another host's Bazel has left here, this one would take for packages.
	links, err := filepath.Glob(filepath.Join(s.workspace, "bazel-*"))
	require.NoError(s.t, err)
	for _, link := range links {
		require.NoError(s.t, os.Remove(link))
	}
	s.t.Cleanup(func() {
		cmd := other.command("shutdown")
		_ = cmd.Run()
		// Its outputs are read-only, directories, too.
		_ = exec.Command("chmod", "-R", "u+w", other.root).Run()
	})
	return other
}

// command is a Bazel command. Wheels come through Bazel's own downloader, which trusts the machine's certificates; what one
// host has downloaded, the next finds in the repository cache.
func (s *shop) command(command string, args ...string) *exec.Cmd {
	startup := []string{
		"--nohome_rc", "--output_user_root=" + s.root, "--max_idle_secs=60", "--host_jvm_args=-Xmx512m",
		"--host_jvm_args=-Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts", command,
	}
	if command != "shutdown" && command != "info" {
		startup = append(startup, "--color=no", "--curses=no", "--repository_cache="+filepath.Join(bin, "repository-cache"))
		for name := range bazelStubs {
			startup = append(startup, fmt.Sprintf("--override_repository=%s=%s/stubs/%[1]s", name, filepath.Join(s.workspace, "../..")))
		}
	}
	cmd := exec.Command("bazel", append(startup, args...)...)
	cmd.Dir = s.workspace
	cmd.Env = append(os.Environ(), "PEXPRESS="+filepath.Join(bin, "pexpress"))
	return cmd
}

// bazel runs a command that must succeed and returns what it wrote to standard output.
func (s *shop) bazel(command string, args ...string) string {
	s.t.Helper()
	stdout, stderr, err := s.try(command, args...)
	require.NoError(s.t, err, "bazel %s %s\n%s", command, strings.Join(args, " "), stderr)
	return stdout
}

func (s *shop) try(command string, args ...string) (stdout, stderr string, err error) {
	cmd := s.command(command, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// spawn is an action that was run, or found in a cache.
type spawn struct {
	Mnemonic, Runner, ProgressMessage string
	RemoteCacheHit                    bool
}

// build builds and returns the actions that it took.
func (s *shop) build(args ...string) []spawn {
	s.t.Helper()
	s.builds++
	log := filepath.Join(s.root, fmt.Sprintf("log%d.json", s.builds))
	s.bazel("build", append([]string{"--execution_log_json_file=" + log}, args...)...)
	return readSpawns(s.t, log)
}

func readSpawns(t *testing.T, log string) []spawn {
	f, err := os.Open(log)
	require.NoError(t, err)
	defer f.Close()
	var all []spawn
	for d := json.NewDecoder(f); ; {
		var sp spawn
		err := d.Decode(&sp)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, sp)
	}
}

// mnemonics counts actions by what they do.
func mnemonics(spawns []spawn) map[string]int {
	n := map[string]int{}
	for _, sp := range spawns {
		n[sp.Mnemonic]++
	}
	return n
}

// requireRemote requires that each action came from the remote cache.
func requireRemote(t *testing.T, spawns []spawn) {
	t.Helper()
	for _, sp := range spawns {
		require.Equal(t, hit, sp.Runner, "%s", sp.ProgressMessage)
	}
}

// pexpress runs the command line that Bazel's actions run.
func (s *shop) pexpress(args ...string) string {
	return client(s.t, s.workspace, []string{"PEXPRESS_HOME=" + filepath.Join(bin, "shop-home")}, filepath.Join(bin, "pexpress"), args...)
}

// files returns the digest of a tree's root and of each of its files, as `pexpress digest` says them.
func (s *shop) files(dir string) []string {
	lines := strings.Split(strings.TrimSpace(s.pexpress("digest", "--files", dir)), "\n")
	lines[0], _, _ = strings.Cut(lines[0], " ")
	slices.Sort(lines[1:])
	return lines
}

var services = []string{"catalog", "mail", "orders"}

// readByBazel is how much content builds have read from a cache; what a codeserver reads says of no invocation.
func readByBazel(p *pexcache) (bytes int64) {
	b, err := os.ReadFile(p.log)
	require.NoError(p.t, err)
	for line := range strings.Lines(string(b)) {
		var r struct {
			Method, Invocation string
			Bytes              int64
		}
		if json.Unmarshal([]byte(line), &r) == nil && r.Invocation != "" &&
			(strings.HasSuffix(r.Method, "ByteStream/Read") || strings.HasSuffix(r.Method, "BatchReadBlobs")) {
			bytes += r.Bytes
		}
	}
	return bytes
}
