package codeserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

func (c *chaos) killInDeploy(p *place) {
	s := c.goodSpec()
	if s == nil {
		return
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.send(p, s, time.Minute)
		done <- err
	}()
	time.Sleep(time.Duration(c.random.Int64N(int64(time.Second))))
	c.endServer(syscall.SIGKILL)
	if err := <-done; err == nil {
		c.serves(p, c.wordOf(s))
	} else {
		p.maybe = append(p.maybe, c.wordOf(s))
	}
	c.serve(0)
}

func (c *chaos) restart(sig syscall.Signal, skew time.Duration) {
	c.endServer(sig)
	c.serve(skew)
}

// skew has the codeserver come back with another clock, to a state that is from the future or long ago.
func (c *chaos) skew(*place) {
	by := time.Duration(c.random.Int64N(int64(800*24*time.Hour))) - 400*24*time.Hour
	c.note("  by %s", by)
	sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT}[c.random.IntN(3)]
	c.restart(sig, by)
}

func (c *chaos) killZygote(*place) {
	for _, pid := range c.zygotes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// mayKill reports whether a version may be killed again: one that ends too often is taken back.
func (p *place) mayKill() bool {
	p.kills++
	return p.good != "" && p.kills <= 2
}

func (c *chaos) killVersion(p *place) {
	l := c.list(p)
	if l == nil || !p.mayKill() {
		return
	}
	if pid := int(current(l).GetPid()); pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		c.gone(pid)
	}
}

func (c *chaos) killShim(p *place) {
	l := c.list(p)
	if l == nil || !p.mayKill() {
		return
	}
	pid := int(current(l).GetPid())
	shims := c.shimsOf(pid)
	if pid < 2 || len(shims) == 0 {
		return
	}
	for _, shim := range shims {
		_ = syscall.Kill(shim, syscall.SIGKILL)
	}
	c.gone(pid)
}

func (c *chaos) gone(pid int) {
	require.Eventually(c.t, func() bool { return ended(pid) }, patience, 5*time.Millisecond, "process %d does not end", pid)
}

// shimsOf returns the processes above a version's that watch over it.
func (c *chaos) shimsOf(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || len(b) == 0 {
		return nil
	}
	parent := shimOf(c.t, pid)
	if parent < 2 || parent == c.server.cmd.Process.Pid {
		return nil
	}
	return []int{parent}
}

func (c *chaos) makeIll(ill string) {
	if c.ills[ill] > 0 || ill == cacheCut && c.ills[cacheGone] > 0 || ill == cacheGone && c.ills[cacheCut] > 0 || ill == diskFull && !c.small {
		return
	}
	switch ill {
	case cacheGone:
		c.cacheProc.end(syscall.SIGKILL)
	case cacheCut:
		require.NoError(c.t, c.cacheProc.cmd.Process.Signal(syscall.SIGSTOP))
	case diskFull:
		c.fill()
	}
	c.ills[ill] = 1 + c.random.IntN(4)
}

// corrupt writes over some of the files that the codeserver keeps.
func (c *chaos) corrupt(*place) {
	patterns := []string{
		"store/blobs/cas/*/*", "store/trees/*/app/*", "python/wheels/*/*", "python/wheels/*/*/*", "python/wheels/*/site/__pycache__/*", "python/envs/*/*",
		"warm/*", "logs/*",
	}
	pattern := patterns[c.random.IntN(len(patterns))]
	files, err := filepath.Glob(filepath.Join(c.state, pattern))
	require.NoError(c.t, err)
	c.random.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	n := 0
	for _, path := range files {
		st, err := os.Lstat(path)
		if err != nil || !st.Mode().IsRegular() || n == 3 {
			continue
		}
		n++
		c.note("  %s", strings.TrimPrefix(path, c.state))
		_ = os.Chmod(path, 0o644)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			continue
		}
		from := st.Size() / 2 * c.random.Int64N(2)
		_, _ = f.WriteAt([]byte(strings.Repeat("?", int(st.Size()-from))), from)
		f.Close()
		_ = os.Chmod(path, st.Mode())
	}
	if c.ills[diskFull] == 0 {
		require.NoError(c.t, os.WriteFile(filepath.Join(c.state, ".state.json.17"), []byte("{"), 0o600))
	}
	c.restart([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT}[c.random.IntN(3)], 0)
}
