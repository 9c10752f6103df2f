package limits

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeLayout has groups whose processor time a test sets.
type fakeLayout struct {
	layout
	dir  string
	used map[string]time.Duration
	low  map[string]bool
}

func (f *fakeLayout) name() string                           { return "fake" }
func (f *fakeLayout) path(_ controller, group string) string { return filepath.Join(f.dir, group) }
func (f *fakeLayout) cpu(group string) time.Duration         { return f.used[group] }
func (f *fakeLayout) weigh(group string, low bool) error {
	delete(f.low, group)
	if low {
		f.low[group] = true
	}
	return nil
}

// TestDemote has groups use more or less, and sees which of them give way.
func TestDemote(t *testing.T) {
	f := &fakeLayout{dir: t.TempDir(), used: map[string]time.Duration{}, low: map[string]bool{}}
	for _, name := range []string{"v-quiet", "v-busy", "v-limited", "v-sometimes"} {
		require.NoError(t, os.Mkdir(filepath.Join(f.dir, name), 0o755))
	}
	f.low["v-quiet"] = true // a codeserver that was killed has left it so
	now, spent := time.Now(), time.Duration(0)
	b := newBalance(&Host{layout: f, prefix: "v-"}, now, func() time.Duration { return spent })
	tick := func(name string, used time.Duration) {
		now = now.Add(balanceEvery)
		for who, d := range map[string]time.Duration{name: used, "v-quiet": balanceEvery / 10} {
			f.used[who] += d
			spent += d
		}
		b.demote(now)
	}
	tick("v-busy", balanceEvery) // all are known
	for range 100 {
		tick("", 0)
	}
	for range 10 {
		tick("v-sometimes", balanceEvery)
		for range 20 {
			tick("", 0)
		}
	}
	require.Empty(t, f.low)
	for range 2 { // the first shows only that it may be
		tick("v-busy", balanceEvery)
	}
	require.Equal(t, map[string]bool{"v-busy": true}, f.low)
	for range 2 {
		tick("v-limited", balanceEvery)
		tick("", 0)
	}
	require.Equal(t, map[string]bool{"v-busy": true, "v-limited": true}, f.low)
	require.NoError(t, os.Mkdir(filepath.Join(f.dir, "v-starts"), 0o755))
	for passed := time.Duration(0); passed < startFor; passed += balanceEvery {
		tick("v-starts", balanceEvery)
		require.NotContains(t, f.low, "v-starts")
	}
	tick("v-starts", balanceEvery)
	require.Contains(t, f.low, "v-starts")
}

// weighing is a layout that tells how groups are weighed.
type weighing struct {
	layout
	low chan bool
}

func (w weighing) weigh(_ string, low bool) error {
	w.low <- low
	return nil
}

// TestYield has a group give way before it has used anything, and not for ever.
func TestYield(t *testing.T) {
	w := weighing{low: make(chan bool, 2)}
	h := &Host{layout: w}
	(&Group{host: h, name: "ends"}).Yield(0)
	require.True(t, <-w.low)
	require.False(t, <-w.low)
	h.None(Limits{}).Yield(0)
	require.Empty(t, w.low)
}

// TestYieldAndDemote has a group give way for two reasons, and until both are over.
func TestYieldAndDemote(t *testing.T) {
	f := &fakeLayout{dir: t.TempDir(), used: map[string]time.Duration{}, low: map[string]bool{}}
	require.NoError(t, os.Mkdir(filepath.Join(f.dir, "v-busy"), 0o755))
	now, spent := time.Now(), time.Duration(0)
	h := &Host{layout: f, prefix: "v-"}
	b := newBalance(h, now, func() time.Duration { return spent })
	b.wants = func(string) bool { return false }
	tick := func(used time.Duration) {
		now = now.Add(balanceEvery)
		f.used["v-busy"] += used
		spent += used
		b.demote(now)
	}
	require.NoError(t, h.lower("v-busy")) // as Yield does
	for range 2 + startFor/balanceEvery {
		tick(balanceEvery)
		require.Contains(t, f.low, "v-busy", "also when it is seen first")
	}
	require.True(t, b.low())
	require.NoError(t, h.raise("v-busy"))
	require.Contains(t, f.low, "v-busy", "it computes all the same")
	for range 2 {
		now = now.Add(calmEvery)
		b.restore(now)
	}
	require.Empty(t, f.low)
	require.False(t, b.low())
	require.Empty(t, h.lowered.by)
}

// TestStarve has a group compute that gives way, beside somebody who is no group and uses all the processors, or a part of them.
func TestStarve(t *testing.T) {
	f := &fakeLayout{dir: t.TempDir(), used: map[string]time.Duration{}, low: map[string]bool{}}
	for _, name := range []string{"v-busy", "v-done"} {
		require.NoError(t, os.Mkdir(filepath.Join(f.dir, name), 0o755))
	}
	now, spent := time.Now(), time.Duration(0)
	b := newBalance(&Host{layout: f, prefix: "v-"}, now, func() time.Duration { return spent })
	wanting := map[string]bool{"v-busy": true, "v-done": true}
	b.wants = func(group string) bool { return wanting[group] }
	second := func(used, others time.Duration) {
		for range calmEvery / balanceEvery {
			now = now.Add(balanceEvery)
			for group := range wanting {
				f.used[group] += used * balanceEvery / calmEvery
			}
			spent += (time.Duration(len(wanting))*used + others) * balanceEvery / calmEvery
			b.demote(now)
		}
		b.restore(now)
	}
	low := map[string]bool{"v-busy": true, "v-done": true}
	whole := time.Second * time.Duration(online())
	second(whole/2, 0)
	require.Equal(t, low, f.low)
	second(whole/2, 0)
	require.Equal(t, low, f.low, "they share all there is")
	second(whole/50, whole/2)
	require.Equal(t, low, f.low, "there is more than they use")
	delete(wanting, "v-done")
	second(whole/50, whole)
	require.Empty(t, f.low)
	for range spareFor/time.Second - 1 {
		second(whole/2, whole/2)
	}
	require.False(t, f.low["v-busy"], "it computes beside them")
	for range 3 {
		second(whole/2, whole/2)
	}
	require.True(t, f.low["v-busy"])
}
