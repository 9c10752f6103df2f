package zygote_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/worker"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

// TestCalledOff ends a deploy that waits for its zygote: the next version is forked all the same.
func TestCalledOff(t *testing.T) {
	b := newBench(t, remembers)
	b.start("", false, nil)
	b.pool.Close()
	b.open()
	held, hold := filepath.Join(b.dir, "held"), filepath.Join(b.dir, "hold")
	b.install("dependency", "import os, time\nPID = os.getpid()\nopen('"+held+"', 'w').close()\nwhile os.path.exists('"+hold+"'): time.sleep(0.01)\n")
	require.NoError(t, os.WriteFile(hold, nil, 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	launched := make(chan *zygote.Launch)
	go func() {
		v, src := b.version("", nil)
		launched <- b.pool.Launch(ctx, v, &worker.Spec{Dir: src, Env: v.Env}, false)
	}()
	require.Eventually(t, func() bool {
		_, err := os.Stat(held)
		return err == nil
	}, 20*time.Second, time.Millisecond, "its zygote is being made")
	cancel()
	l := <-launched
	require.False(t, l.Warm())
	l.Failed(false)
	require.NoError(t, os.Remove(hold))
	require.True(t, b.start("", false, nil).warm, "%s", b.log)
	require.Empty(t, b.log.String(), "nothing is wrong")
}

// TestRepaired has a zygote fail to import a dependency that is damaged: once that is repaired, others are forked with it again,
// and from none that had it before.
func TestRepaired(t *testing.T) {
	b := newBench(t, remembers)
	b.start("", false, nil)
	b.pool.Close()
	b.open()
	b.install("dependency", "import os; what is this?\n")
	b.start("", false, nil) // it ends
	b.install("dependency", remembers)
	before := b.pool.Stats().Zygotes
	require.Len(t, before, 1)
	b.pool.Repaired()
	require.Empty(t, b.pool.Stats().Zygotes)
	b.start("", true, nil)
	s := b.start("", false, nil)
	require.True(t, s.warm, "%s", b.log)
	require.NotEqual(t, s.PID(), s.importer(t))
	require.NotContains(t, before, s.importer(t))
}
