package worker

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/proc"
)

// leavable starts a script that another codeserver can take over.
func leavable(t *testing.T, dir, script string, within time.Duration) (*Worker, *book) {
	b := &book{}
	w, err := Start(Spec{
		Program: "/bin/sh", Args: []string{"-c", script}, Dir: t.TempDir(), Env: []string{"PATH=/usr/bin:/bin"},
		Log: b.write, Grace: time.Second, Socket: filepath.Join(dir, "s"), Within: within, Record: json.RawMessage(`"one"`),
	})
	require.NoError(t, err)
	t.Cleanup(func() { w.Stop(context.Background()) })
	return w, b
}

func wrote(b *book) bool { return len(b.all()) > 0 }

func soon(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 20*time.Second, 5*time.Millisecond)
}

// gone reports whether a process has ended; whether somebody has reaped it is not its business.
func gone(pid int) bool {
	s, err := proc.ReadStat(pid)
	return err != nil || s.State == 'Z'
}

// only returns the one orphan that there is.
func only(t *testing.T, dir string) *Orphan {
	t.Helper()
	all, err := Orphans(dir)
	require.NoError(t, err)
	require.Len(t, all, 1)
	return all[0]
}

// TestAdopt leaves a process, twice: it goes on, what it writes meanwhile is read, and it is told what was noted last.
func TestAdopt(t *testing.T) {
	dir := t.TempDir()
	said := filepath.Join(dir, "say")
	w, b := leavable(t, dir, `while :; do if test -e `+said+`; then mv `+said+` `+said+`.done; echo said; fi; sleep 0.01; done`, time.Minute)
	pid := w.PID()
	w.Leave()
	require.ErrorIs(t, w.Err(), ErrLeft)
	require.NoError(t, os.WriteFile(said, nil, 0o600))
	soon(t, func() bool { _, err := os.Stat(said + ".done"); return err == nil })
	require.Empty(t, b.all())

	o := only(t, dir)
	require.Equal(t, pid, o.PID())
	require.JSONEq(t, `"one"`, string(o.Record))
	again := &book{}
	w = o.Adopt(Spec{Log: again.write, Within: time.Minute})
	soon(t, func() bool { return wrote(again) })
	require.Equal(t, []string{"said"}, again.all())
	require.NoError(t, w.Note(json.RawMessage(`"two"`)))
	w.Leave()

	o = only(t, dir)
	require.JSONEq(t, `"two"`, string(o.Record))
	w = o.Adopt(Spec{Log: again.write, Within: time.Minute})
	w.Stop(context.Background())
	require.ErrorContains(t, w.Err(), "terminated")
	require.True(t, gone(pid))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "the file that was moved, and no socket")
}

// TestEndedMeanwhile has a process end while nobody is there: its last words and its status are told.
func TestEndedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	w, _ := leavable(t, dir, `until test -e `+dir+`/go; do sleep 0.01; done; echo last; exit 7`, time.Minute)
	pid := w.PID()
	w.Leave()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	soon(t, func() bool { return gone(pid) })
	b := &book{}
	w = only(t, dir).Adopt(Spec{Log: b.write})
	<-w.Done()
	require.EqualError(t, w.Err(), "the process ended with status 7")
	require.Equal(t, []string{"last"}, b.all())
	all, err := Orphans(dir)
	require.NoError(t, err)
	require.Empty(t, all)
}

// TestNobodyComes ends a process that nobody takes over in time, and one that may not be taken over at once.
func TestNobodyComes(t *testing.T) {
	for _, within := range []time.Duration{0, 100 * time.Millisecond} {
		dir := t.TempDir()
		w, _ := leavable(t, dir, `sleep 600 & wait`, within)
		pid := w.PID()
		w.Leave()
		soon(t, func() bool { return gone(pid) })
		soon(t, func() bool { _, err := os.Stat(filepath.Join(dir, "s")); return os.IsNotExist(err) })
	}
}

// TestKilledShim kills the shim of a process that is left: the process ends with it, and its socket is removed.
func TestKilledShim(t *testing.T) {
	dir := t.TempDir()
	w, _ := leavable(t, dir, `echo $PPID; sleep 600`, time.Minute)
	pid, shim := w.PID(), w.shim.pid()
	w.Leave()
	require.NoError(t, syscall.Kill(shim, syscall.SIGKILL))
	soon(t, func() bool { return gone(pid) })
	all, err := Orphans(dir)
	require.NoError(t, err)
	require.Empty(t, all)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestStoppedOrphan finds a shim that says nothing: it, and what it watches over, are ended all the same.
func TestStoppedOrphan(t *testing.T) {
	defer func(d time.Duration) { helloTimeout = d }(helloTimeout)
	helloTimeout = 200 * time.Millisecond
	dir := t.TempDir()
	w, _ := leavable(t, dir, `exec sleep 600`, time.Minute)
	pid, shim := w.PID(), w.shim.pid()
	w.Leave()
	require.NoError(t, syscall.Kill(shim, syscall.SIGSTOP))
	soon(t, func() bool { // until all of its threads have stopped it may answer
		return !slices.ContainsFunc(proc.Threads(shim), func(s proc.Stat) bool { return s.State != 'T' })
	})
	all, err := Orphans(dir)
	require.ErrorContains(t, err, "is ended")
	require.Len(t, all, 1)
	require.Nil(t, all[0].Record)
	require.Contains(t, all[0].Processes(), pid)
	all[0].End(context.Background(), nil)
	soon(t, func() bool { return gone(pid) }) // whoever adopts it reaps it
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// answer listens on a socket of a process of its own, and answers what comes with one packet.
const answerEnv = "WORKER_TEST_ANSWER"

func init() {
	packet, ok := os.LookupEnv(answerEnv)
	if !ok {
		return
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: os.Args[1] + ".new", Net: "unixpacket"})
	if err == nil {
		err = os.Rename(os.Args[1]+".new", os.Args[1])
	}
	if err != nil {
		panic(err)
	}
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			panic(err)
		}
		_, _ = c.Write([]byte(packet))
		// Kept open: the end of it is not seen.
	}
}

func stranger(t *testing.T, socket, packet string, as uint32) int {
	cmd := exec.Command(os.Args[0], socket)
	cmd.Env = []string{answerEnv + "=" + packet}
	if as != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: as, Gid: as}}
	}
	require.NoError(t, cmd.Start())
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	soon(t, func() bool { _, err := os.Stat(socket); return err == nil })
	return cmd.Process.Pid
}

// TestStrangers answers on a shim's socket what no shim of this version says: it is ended.
func TestStrangers(t *testing.T) {
	for name, packet := range map[string]string{
		"garbage": "\x01garbage", "older": `{"protocol":0,"pid":17}`, "newer": `{"protocol":99,"pid":17}`, "no output": `{"protocol":1,"pid":17}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			pid := stranger(t, filepath.Join(dir, "s"), packet, 0)
			all, err := Orphans(dir)
			require.ErrorContains(t, err, "is ended")
			require.Len(t, all, 1)
			require.Nil(t, all[0].Record)
			all[0].End(context.Background(), nil)
			soon(t, func() bool { return gone(pid) })
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// TestOtherUser finds a socket of another user's: it is left alone.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user's")
	}
	dir, err := os.MkdirTemp("", "worker") // t.TempDir is below a directory that is closed to others
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o777))
	binary := filepath.Join(dir, "test")
	b, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(binary, b, 0o755))
	defer func(a string) { os.Args[0] = a }(os.Args[0])
	os.Args[0] = binary
	pid := stranger(t, filepath.Join(dir, "s"), `{}`, 65534)
	all, err := Orphans(dir)
	require.ErrorContains(t, err, "it is user "+strconv.Itoa(65534)+"'s")
	require.Empty(t, all)
	require.False(t, gone(pid))
}
