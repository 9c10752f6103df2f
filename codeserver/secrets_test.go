package codeserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// secretHost gives the location "web" the secret TOKEN, from a file that is returned, too.
func secretHost(t *testing.T, value string) (h *host, file string) {
	dir := t.TempDir()
	file = filepath.Join(dir, "value")
	require.NoError(t, os.WriteFile(file, []byte(value+"\n"), 0o600))
	config := filepath.Join(dir, "secrets.toml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "[location.web]\nTOKEN = { file = %q }\n", file), 0o600))
	return newHost(t, func(o *Options) { o.Secrets = config }), file
}

func withSecret(s *codeserverpb.VersionSpec) { s.Secrets = []string{"TOKEN"} }

// tokenOf returns what the version has in its environment.
func (h *host) tokenOf(d *codeserverpb.Deployed) string {
	var env map[string]string
	require.NoError(h.t, json.Unmarshal([]byte(h.get(d, "/env")), &env))
	return env["TOKEN"]
}

// TestRestartTakesUpASecret deploys what serves already, which changes nothing, and has it started anew.
func TestRestartTakesUpASecret(t *testing.T) {
	t.Parallel()
	h, file := secretHost(t, "old")
	spec := h.spec(greedy("one"), withSecret)
	first := h.deploy(spec)
	pid := h.version("web").GetPid()
	require.NoError(t, os.WriteFile(file, []byte("new\n"), 0o600))
	require.True(t, h.deploy(spec).GetUnchanged())
	require.Equal(t, "old", h.tokenOf(first), "a process keeps what it was started with")

	d, err := h.anew()
	require.NoError(t, err)
	require.False(t, d.GetUnchanged())
	require.Equal(t, first.GetLocation().GetAddress(), d.GetLocation().GetAddress())
	require.Equal(t, first.GetLocation().GetCurrent(), d.GetLocation().GetCurrent())
	require.Empty(t, d.GetLocation().GetPrevious(), "there is nothing else to go back to")
	require.Equal(t, "new", h.tokenOf(d))
	require.NotEqual(t, pid, h.version("web").GetPid())
	eventually(t, func() bool { return syscall.Kill(int(pid), 0) != nil }, "the old process ends")

	// One that does not come up leaves the one that serves.
	pid = h.version("web").GetPid()
	require.NoError(t, os.Remove(file))
	_, err = h.anew()
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, "web is served by the process before: ")
	require.ErrorContains(t, err, "TOKEN")
	require.Equal(t, "new", h.tokenOf(d))
	require.Equal(t, pid, h.version("web").GetPid())
}

// TestSecretReachesOnlyItsVersion deploys a version with a secret, by itself and forked, and looks for the value in all
// that others could see.
func TestSecretReachesOnlyItsVersion(t *testing.T) {
	t.Parallel()
	value := "v4lue-of-the-" + strings.Repeat("s3cret", 4)
	h, _ := secretHost(t, value)
	d := h.deploy(h.spec(greedy("one"), withSecret))
	require.Equal(t, value, h.tokenOf(d))
	h.s.zygotes.Wait()
	d = h.deploy(h.spec(greedy("two"), withSecret))
	require.Equal(t, value, h.tokenOf(d))
	v := h.version("web")
	require.True(t, v.GetForked())
	require.NotContains(t, prototext.Format(d)+prototext.Format(v), value)
	require.NoError(t, filepath.WalkDir(h.opts.State, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			require.NotContains(t, readFile(t, path), value, path)
		}
		return err
	}))
	zygotes := 0
	for _, p := range worker.Descendants(os.Getpid()) {
		require.NotContains(t, p.Command, value)
		if !strings.Contains(p.Command, h.opts.State) || p.PID == int(v.GetPid()) {
			continue
		}
		require.NotContains(t, readFile(t, fmt.Sprintf("/proc/%d/environ", p.PID)), value, p.Command)
		if strings.Contains(p.Command, ".py serve") {
			zygotes++
			require.False(t, memoryHas(t, p.PID, []byte(value)), "what another location's versions are forked from")
		}
	}
	require.NotZero(t, zygotes)
	require.True(t, memoryHas(t, int(v.GetPid()), []byte(value)), "the search finds what is there")

	other, err := h.try(&codeserverpb.DeployRequest{Location: "other", Spec: h.spec(greedy("other"))})
	require.NoError(t, err)
	require.Empty(t, h.tokenOf(other))
	pid := h.version("other").GetPid()
	require.True(t, h.version("other").GetForked())
	require.False(t, memoryHas(t, int(pid), []byte(value)))
}

// memoryHas searches the memory that a process has for itself.
func memoryHas(t *testing.T, pid int, value []byte) bool {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if os.IsPermission(err) {
		t.Skip("the memory of another process cannot be read: ", err)
	}
	require.NoError(t, err)
	defer mem.Close()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/maps", pid))) {
		var from, to uint64
		_, err := fmt.Sscanf(line, "%x-%x", &from, &to)
		require.NoError(t, err)
		if f := strings.Fields(line); f[1][0] != 'r' || from > math.MaxInt64 || len(f) > 5 && f[5] != "[heap]" && f[5] != "[stack]" {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, int64(from))
		if bytes.Contains(b[:n], value) {
			return true
		}
	}
	return false
}

// TestSecretIsReadAtEachStart changes a secret: a version that is started again has the new one.
func TestSecretIsReadAtEachStart(t *testing.T) {
	t.Parallel()
	h, file := secretHost(t, "first")
	d := h.deploy(h.spec(greedy("one"), withSecret))
	require.Equal(t, "first", h.tokenOf(d))
	require.NoError(t, os.WriteFile(file, []byte("second"), 0o600))
	ask(d, "crash")
	eventually(t, func() bool { return h.version("web").GetUsage().GetRestarts() == 1 }, "it has ended")
	await(t, d.GetLocation().GetAddress(), "one")
	require.Equal(t, "second", h.tokenOf(d))
}

func TestSecretsRefused(t *testing.T) {
	t.Parallel()
	h, file := secretHost(t, "value")
	spec := h.spec(greedy("one"), withSecret)
	message := h.refused(codes.FailedPrecondition, &codeserverpb.DeployRequest{Location: "other", Spec: spec})
	require.Contains(t, message, "TOKEN for the location other")
	h.refused(codes.FailedPrecondition, webRequest(h.spec(greedy("one"), func(s *codeserverpb.VersionSpec) { s.Secrets = []string{"NONE"} })))
	for _, names := range [][]string{{"PORT"}, {"PYTHONPATH"}, {"LD_PRELOAD"}, {"A B"}, {"TOKEN", "TOKEN"}, {""}} {
		h.refused(codes.InvalidArgument, webRequest(h.spec(greedy("one"), func(s *codeserverpb.VersionSpec) { s.Secrets = names })))
	}
	h.refused(codes.InvalidArgument, webRequest(h.spec(greedy("one"), withSecret, func(s *codeserverpb.VersionSpec) {
		s.Env = map[string]string{"TOKEN": "x"}
	})))
	require.NoError(t, os.Remove(file))
	h.refused(codes.FailedPrecondition, webRequest(spec))
	plain := newHost(t)
	message = plain.refused(codes.FailedPrecondition, webRequest(plain.spec(greedy("one"), withSecret)))
	require.Contains(t, message, "--secrets")
}
