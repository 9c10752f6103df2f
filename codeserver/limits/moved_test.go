package limits

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMoved has the next codeserver on a state directory run in another cgroup than the one before, as one does that is started,
// or ended, from another session.
func TestMoved(t *testing.T) {
	state := t.TempDir()
	next := openHost(t, state)
	v, ok := next.layout.(*v1)
	if !ok {
		t.Skip("needs cgroups version 1: with version 2 the tests' own group can have none below it")
	}
	slice, err := openHost(t, t.TempDir()).Group("slice", Limits{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, slice.End()) })
	there := *v
	there.base = map[controller]string{}
	for c, base := range v.base {
		there.base[c] = filepath.Join(base, slice.name)
	}
	before := &Host{layout: &there, prefix: next.prefix, places: next.places, log: next.log}
	require.NoError(t, before.Remember())
	group := func(name string) *Group {
		g, err := before.Group(name, Limits{Memory: 1 << 30})
		require.NoError(t, err)
		return g
	}
	left, kept := group("left"), group("kept")
	leftProcess, keptProcess := inGroup(t, left), inGroup(t, kept)

	require.NoError(t, there.weigh(kept.name, true)) // the one before was killed
	adopted := next.Adopt(keptProcess.Process.Pid, Limits{Memory: 1 << 30})
	require.NotNil(t, adopted)
	require.Equal(t, kept.Dirs(), adopted.Dirs())
	require.EqualValues(t, 1, adopted.Usage(nil).Processes)
	if idle := filepath.Join(there.path(cpu, kept.name), "cpu.idle"); fileExists(idle) {
		require.Zero(t, number(idle), "nobody else would end that")
	}
	require.NoError(t, next.Sweep(func(pid int) bool { return pid == keptProcess.Process.Pid }))
	killed(t, leftProcess)
	for _, dir := range left.Dirs() {
		require.NoDirExists(t, dir)
	}
	require.NoError(t, next.Remember())

	// Who ends it can be where there are no groups.
	nowhere := &Host{prefix: next.prefix, places: next.places, log: next.log}
	require.NoError(t, nowhere.Sweep(nobodys))
	killed(t, keptProcess)
	for _, dir := range kept.Dirs() {
		require.NoDirExists(t, dir)
	}
	require.NoError(t, next.Remember())
	require.Equal(t, next.current(), nowhere.allPlaces(), "that of the one before is forgotten")
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
