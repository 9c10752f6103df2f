package zygote_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/zygote"
)

// startVariable has this test's binary start a zygote in a directory's module.
const startVariable = "TEST_START_ZYGOTE"

// startOne starts a zygote that imports a module which never comes to its end.
func startOne(dir string) error {
	script, err := zygote.Script(dir)
	if err != nil {
		return err
	}
	_, err = zygote.Start(context.Background(), zygote.Config{
		Python: os.Getenv("TEST_PYTHON"), Script: script, Env: []string{"PYTHONPATH=" + dir}, Modules: []string{"endless"}, Log: os.Stderr,
	})
	return err
}

// TestImportingWhenKilled kills who has started a zygote while that imports: it does not look at its connection then.
func TestImportingWhenKilled(t *testing.T) {
	dir := t.TempDir()
	module := `
import os, time
with open(os.path.join(os.path.dirname(__file__), "new"), "w") as f:
    f.write(str(os.getpid()))
os.rename(f.name, f.name[:-3] + "pid")
while True:
    time.sleep(1000)
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "endless.py"), []byte(module), 0o644))
	codeserver := exec.Command(os.Args[0])
	codeserver.Env = append(os.Environ(), startVariable+"="+dir, "TEST_PYTHON="+pythons(t)[0])
	codeserver.Stderr = os.Stderr
	require.NoError(t, codeserver.Start())
	defer func() { _ = codeserver.Process.Kill() }()
	var pid int
	require.Eventually(t, func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "pid"))
		pid, _ = strconv.Atoi(string(b))
		return pid > 0
	}, time.Minute, 5*time.Millisecond)
	fd, err := unix.PidfdOpen(pid, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, codeserver.Process.Kill())
	require.EqualError(t, codeserver.Wait(), "signal: killed")
	late := time.AfterFunc(20*time.Second, func() { _ = unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0) })
	for {
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			break
		}
	}
	require.NoError(t, err)
	require.True(t, late.Stop(), "it had to be ended")
}
