package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// node is a pexcache node over a bucket, with a disk tier or without.
type node struct {
	pexcache
	disk string
	args []string
	env  []string
	cmd  *exec.Cmd
}

// newNode starts a node over the bucket.
func newNode(t *testing.T, v *s3test.Versity, disk bool) *node {
	n := &node{pexcache: pexcache{t: t}, env: append(os.Environ(), v.Env()...)}
	n.args = []string{
		"serve", "--s3", "s3://" + v.Bucket + "/team", "--s3-endpoint", v.Endpoint, "--s3-path-style", "--log-level", "debug",
		"--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
	}
	if disk {
		n.disk = filepath.Join(t.TempDir(), "disk")
		n.args = append(n.args, "--disk", n.disk)
	}
	n.start()
	t.Cleanup(func() { n.end(syscall.SIGTERM) })
	return n
}

func (n *node) start() {
	binary, err := buildPexcache()
	require.NoError(n.t, err)
	n.log = filepath.Join(n.t.TempDir(), "log")
	log, err := os.Create(n.log)
	require.NoError(n.t, err)
	defer log.Close()
	n.cmd = exec.Command(binary, n.args...)
	n.cmd.Env, n.cmd.Stdout, n.cmd.Stderr = n.env, log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(n.t, n.cmd.Start())
	require.Eventually(n.t, func() bool {
		n.grpc = n.address("serving gRPC")
		return n.grpc != ""
	}, 30*time.Second, 10*time.Millisecond, "%s", n.said)
}

func (n *node) end(sig syscall.Signal) {
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(sig)
		_ = n.cmd.Wait()
		n.cmd = nil
	}
}

// wipe ends the node, removes its disk tier, and starts it again.
func (n *node) wipe() {
	n.end(syscall.SIGKILL)
	require.NoError(n.t, os.RemoveAll(n.disk))
	n.start()
}

// through has the host use a node for its cache.
func (h *host) through(n *node) { h.remote = "grpc://" + n.grpc }

// requireHits checks that a deploy built nothing.
func requireHits(t *testing.T, events []map[string]any) {
	for _, output := range []string{"deps.pex", "source.pex"} {
		built := find(events, "built", "output", output)
		require.NotNil(t, built, output)
		require.Equal(t, true, built["hit"], output)
	}
}

// TestTiers brings a project from a build host to hosts that have nothing, by way of a bucket: through two nodes with
// disks, again when the disks are wiped, and through one that has nothing but the bucket.
func TestTiers(t *testing.T) {
	v := s3test.StartVersity(t)
	a, b := newNode(t, v, true), newNode(t, v, true)
	builder := newHost(t, webProject("one"))
	builder.through(a)
	builder.run("build")

	serve := func(n *node) *host {
		h := newHost(t, webProject("one"))
		h.through(n)
		h.start()
		address, events := h.deploy()
		requireHits(t, events)
		require.Equal(t, "one", h.get(address, "/"))
		return h
	}
	second := serve(b)

	a.wipe()
	b.wipe()
	second.through(b)
	second.stop()
	require.NoError(t, os.RemoveAll(filepath.Join(second.dir, "state")))
	second.start()
	address, events := second.deploy()
	requireHits(t, events)
	require.Equal(t, "one", second.get(address, "/"), "from the bucket, through nodes that had nothing")

	a.end(syscall.SIGTERM)
	b.end(syscall.SIGTERM)
	bare := newNode(t, v, false)
	serve(bare)

	// What one node writes the other reads at once.
	a.start()
	builder.through(a)
	builder.write("web/word.py", "WORD = \"two\"\n")
	builder.run("build")
	last := newHost(t, webProject("two"))
	last.through(bare)
	last.start()
	address, events = last.deploy()
	requireHits(t, events)
	require.Equal(t, "two", last.get(address, "/"))
}
