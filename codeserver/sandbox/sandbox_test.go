package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// TestPlan plans the view of a state directory below a directory that is closed to others, with an interpreter in it, too.
func TestPlan(t *testing.T) {
	root := t.TempDir()
	home := filepath.Join(root, "home")
	state, python := filepath.Join(home, "state"), filepath.Join(home, "python")
	for _, dir := range []string{filepath.Join(state, "trees", "a"), python} {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(state, "script"), nil, 0o644))
	require.NoError(t, os.Chmod(home, 0o700))
	require.NoError(t, os.Chmod(root, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(root), 0o755))
	require.Equal(t, home, closed(python))
	require.Empty(t, closed("/usr/bin/env"))
	spec := Plan(7, View{
		Hidden: []string{state}, Scratch: 1 << 24,
		Shown: []Shown{{Path: filepath.Join(state, "trees", "a"), Writable: true}, {Path: python}, {Path: "/usr"}, {Path: filepath.Join(state, "script"), Source: "/etc/passwd"}},
	})
	require.Equal(t, 7, spec.User)
	at := map[string]Mount{}
	for _, m := range spec.Mounts {
		at[m.At] = m
	}
	require.True(t, at["/proc"].Proc)
	require.EqualValues(t, 1<<24, at["/tmp"].Size)
	require.Equal(t, "tmp", at["/tmp"].Part)
	require.NotContains(t, at, "/usr", "it is to be seen as it is")
	require.Equal(t, Mount{At: filepath.Join(state, "trees", "a"), Source: filepath.Join(state, "trees", "a"), Writable: true}, at[filepath.Join(state, "trees", "a")])
	require.Equal(t, Mount{At: filepath.Join(state, "script"), Source: "/etc/passwd"}, at[filepath.Join(state, "script")])
	hides := at["/tmp"]
	if _, in := below("/tmp", root); !in {
		hides = at[home]
	}
	rel, _ := below(hides.At, filepath.Join(state, "script"))
	require.Contains(t, hides.Files, rel)
	require.Len(t, hides.Dirs, 2)
}

// TestWrap executes programs in a sandbox.
func TestWrap(t *testing.T) {
	if err := Check(); err != nil {
		t.Skip("there can be no sandboxes: ", err)
	}
	run := func(script string, s *Spec) (string, error) {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Env, cmd.Dir = []string{"PATH=/usr/bin:/bin", "LD_PRELOAD=/nowhere.so", "GODEBUG=madvdontneed=1"}, "/tmp"
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		started, err := Wrap(cmd, s, nil, 0)
		require.NoError(t, err)
		defer started()
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	const user = 60701
	out, err := run(`pwd; id -u; id -G; echo "$GODEBUG"; grep -E "CapEff|NoNewPrivs" /proc/self/status | tr -d "\t\n"`, Plan(user, View{}))
	require.NoError(t, err, out)
	_, out, _ = strings.Cut(out, "/tmp\n") // before it the loader says that there is no library
	require.Equal(t, "60701\n60701\nmadvdontneed=1\nCapEff:0000000000000000NoNewPrivs:1", withoutPreload(out))
	open, err := exec.Command("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn").Output()
	require.NoError(t, err)
	out, err = run("ulimit -Sn; ulimit -Hn", Plan(user, View{}))
	require.NoError(t, err, out)
	require.Equal(t, strings.TrimSpace(string(open)), withoutPreload(out), "what package os has raised is given back")
	out, err = run("exit 7", Plan(user, View{}))
	require.EqualError(t, err, "exit status 7", out)
	out, err = run("true", &Spec{User: user, Mounts: []Mount{{At: "/no/such/place"}}})
	require.EqualError(t, err, "exit status 125")
	require.Contains(t, out, "/no/such/place")
}

// TestPids has a program in a sandbox see its cgroup's limit from its first moment on, be it the least that there is.
func TestPids(t *testing.T) {
	if err := Check(); err != nil {
		t.Skip("there can be no sandboxes: ", err)
	}
	group, err := os.MkdirTemp("/sys/fs/cgroup/pids", "pexpress-test-")
	if err != nil {
		t.Skip("needs the controller pids of cgroups version 1: ", err)
	}
	t.Cleanup(func() { require.NoError(t, os.Remove(group)) })
	require.NoError(t, os.Chmod(group, 0o755))
	for range 20 {
		cmd := exec.Command("/bin/cat", filepath.Join(group, "pids.max"))
		cmd.Dir, cmd.Env = "/", []string{}
		started, err := Wrap(cmd, Plan(60701, View{}), []string{group}, 1)
		require.NoError(t, err)
		out, err := cmd.CombinedOutput()
		started()
		require.NoError(t, err, string(out))
		require.Equal(t, "1\n", string(out))
	}
}

// withoutPreload leaves out what the loader says of LD_PRELOAD.
func withoutPreload(out string) string {
	var kept []string
	for _, line := range strings.Split(out, "\n") {
		if !strings.Contains(line, "nowhere.so") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// TestIdentify takes nobody for a grandchild who is none: what is admitted becomes a location's user.
func TestIdentify(t *testing.T) {
	me := Parent{PID: os.Getpid(), User: os.Getuid()}
	cmd := exec.Command("/bin/sh", "-c", "sleep 100 & echo $!; wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	line := make([]byte, 32)
	n, err := out.Read(line)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	require.NoError(t, err)

	f, err := identify(pid, me)
	require.NoError(t, err)
	require.Equal(t, cmd.Process.Pid, f.Keeper)
	require.NoError(t, f.File.Close())
	_, err = identify(cmd.Process.Pid, me)
	require.ErrorContains(t, err, "is not a fork of process")
	_, err = identify(pid, Parent{PID: 1, User: me.User})
	require.ErrorContains(t, err, "is not a fork of process 1")
	_, err = identify(pid, Parent{PID: me.PID, User: me.User + 1})
	require.ErrorContains(t, err, "it is user")
	_, err = identify(1<<22+1, me)
	require.Error(t, err)
}

// TestAsks refuses what another user says, and what says why it cannot.
func TestAsks(t *testing.T) {
	ours, theirs, err := Connection()
	require.NoError(t, err)
	defer ours.Close()
	say := func(word string) {
		_, err := syscall.Write(int(theirs.Fd()), []byte(word))
		require.NoError(t, err)
	}
	say("ready")
	pid, err := asks(ours, os.Getuid())
	require.NoError(t, err)
	require.Equal(t, os.Getpid(), pid)
	say("ready")
	_, err = asks(ours, os.Getuid()+1)
	require.ErrorContains(t, err, "asks to be admitted")
	say("make a user namespace: Operation not permitted")
	_, err = asks(ours, os.Getuid())
	require.EqualError(t, err, "make a user namespace: Operation not permitted")
	require.NoError(t, theirs.Close())
	_, err = asks(ours, os.Getuid())
	require.Error(t, err)
}
