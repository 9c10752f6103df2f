package examples

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
)

// pexcache is a cache server with an empty disk, on loopback.
type pexcache struct {
	t          *testing.T
	log        string
	grpc, http string // HOST:PORT
	pid        int
}

// buildPexcache builds the server once, for the tests that need it. $PEXPRESS_TEST_PEXCACHE names another binary.
var buildPexcache = sync.OnceValues(func() (string, error) {
	if binary := os.Getenv("PEXPRESS_TEST_PEXCACHE"); binary != "" {
		return binary, nil
	}
	out := filepath.Join(bin, "pexcache")
	build := exec.Command("go", "build", "-o", out, "./cache/cmd/pexcache")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	return out, build.Run()
})

// servePexcache starts a cache server that ends with the test.
func servePexcache(t *testing.T) *pexcache {
	binary, err := buildPexcache()
	require.NoError(t, err)
	dir := t.TempDir()
	p := &pexcache{t: t, log: filepath.Join(dir, "log")}
	log, err := os.Create(p.log)
	require.NoError(t, err)
	defer log.Close()
	cmd := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
		"--disk", filepath.Join(dir, "disk"), "--log-level", "debug")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	p.pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pexcache said:\n%s", p.said())
		}
	})
	require.Eventually(t, func() bool {
		p.grpc, p.http = p.address("serving gRPC"), p.address("serving HTTP")
		return p.grpc != "" && p.http != ""
	}, 30*time.Second, 10*time.Millisecond)
	return p
}

// said is the end of the log.
func (p *pexcache) said() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-8<<10):])
}

// address returns where the server says that it listens.
func (p *pexcache) address(message string) string {
	b, _ := os.ReadFile(p.log)
	for line := range strings.Lines(string(b)) {
		var said struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == message {
			return said.Address
		}
	}
	return ""
}

// request is a line of the server's log.
type request struct {
	Method string
	Code   string
	Bytes  int64
}

// requests returns the requests whose method ends in name, by the server's log.
func (p *pexcache) requests(name string) []request {
	b, err := os.ReadFile(p.log)
	require.NoError(p.t, err)
	var all []request
	for line := range strings.Lines(string(b)) {
		var r request
		if json.Unmarshal([]byte(line), &r) == nil && strings.HasSuffix(r.Method, name) {
			all = append(all, r)
		}
	}
	return all
}

func (p *pexcache) called(name string) int { return len(p.requests(name)) }

// bytes returns how much content went through a method.
func (p *pexcache) bytes(name string) int64 {
	var n int64
	for _, r := range p.requests(name) {
		n += r.Bytes
	}
	return n
}

// client runs a program that must succeed and returns what it wrote.
func client(t *testing.T, dir string, env []string, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	require.NoError(t, err, "%s %s\n%s", program, strings.Join(args, " "), out.String())
	return out.String()
}

// writeTree writes files, those named *.sh executable.
func writeTree(t *testing.T, dir string, files map[string]string) {
	for name, content := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		require.NoError(t, os.WriteFile(path, []byte(content), mode))
	}
}

// readTree reads files back; a symlink's content is its target.
func readTree(t *testing.T, dir string) map[string]string {
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		var b []byte
		if d.Type()&os.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			files[name] = "-> " + target
			return err
		}
		b, err = os.ReadFile(path)
		files[name] = string(b)
		return err
	}))
	return files
}

// noise is content that does not compress.
func noise(seed uint64, size int) string {
	b := make([]byte, size)
	for i := range b {
		seed = seed*6364136223846793005 + 1442695040888963407
		b[i] = byte(seed >> 56)
	}
	return string(b)
}

// digestOf is a blob's digest as tools write it.
func digestOf(content string) string { return digest.FromBytes([]byte(content)).String() }
