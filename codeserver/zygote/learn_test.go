package zygote_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/zygote"
)

// TestFreshHost has a host that has never started these dependencies: what another one has learned of them is enough to
// fork the first version. What was learned is not asked for again.
func TestFreshHost(t *testing.T) {
	first := newBench(t, remembers)
	first.start("import decimal, helper, missing_from_here\n", false, map[string]string{"helper.py": "", "missing_from_here.py": ""})
	told := first.others.learned(t)
	require.Contains(t, told.Modules, "dependency")
	require.Contains(t, told.Modules, "decimal")
	require.NotContains(t, told.Modules, "helper", "it is the version's own")
	require.NotContains(t, told.Modules, "main")

	second := newBench(t, remembers)
	second.others.known = first.others.known
	s := second.start("", false, nil)
	require.True(t, s.warm, "%s", second.log)
	require.NotEqual(t, s.PID(), s.importer(t))
	require.Contains(t, second.log.String(), "from another host")
	second.pool.Close()
	second.open()
	second.others.known = []byte("not asked")
	require.True(t, second.start("", false, nil).warm, "it knows by itself now")
	require.Equal(t, 1, second.others.fetched)
}

// TestOthersAway has an exchange that fails, as a cache that is away or may only be read: versions start all the same, and
// later ones are forked.
func TestOthersAway(t *testing.T) {
	b := newBench(t, remembers)
	b.others.err = errors.New("the cache is away")
	require.False(t, b.start("", false, nil).warm)
	require.True(t, b.start("", false, nil).warm)
	require.Contains(t, b.log.String(), "the cache is away")
}

// TestOthersLie gives a host lists that name what must not be imported: each is ignored, and the reason is in the log.
func TestOthersLie(t *testing.T) {
	many := make([]string, 20_001)
	for i := range many {
		many[i] = fmt.Sprintf("m%d", i)
	}
	list := func(names ...string) string {
		b, err := json.Marshal(zygote.Learned{Modules: names})
		require.NoError(t, err)
		return string(b)
	}
	lies := map[string]string{
		"an order":        list("os; import evil"),
		"a path":          list("../../tmp/evil"),
		"a relative name": list(".evil"),
		"an empty part":   list("json..decoder"),
		"nothing":         list(""),
		"a digit":         list("2to3"),
		"long":            list(strings.Repeat("a", 201)),
		"deep":            list(strings.Repeat("a.", 30) + "a"),
		"a program":       list("json.tool", "pip.__main__"),
		"tests":           list("numpy.tests.test_all"),
		"harmful":         list("antigravity"),
		"harmful part":    list("idlelib.idle"),
		"a line break":    list("json\nos"),
		"other letters":   list("jsön"),
		"many":            list(many...),
		"huge":            list("json") + strings.Repeat(" ", zygote.MaxLearned),
		"two":             list("json") + list("os"),
		"other fields":    `{"modules": ["json"], "run": "x"}`,
		"other types":     `{"modules": {"json": 1}}`,
		"no JSON":         `modules`,
		"no reason":       `{"modules": [], "left_out": {"numpy": "` + strings.Repeat("a", 301) + `"}}`,
		"control":         `{"modules": [], "left_out": {"numpy": "\u001b[2J"}}`,
		"no package":      `{"modules": [], "left_out": {"a/b": ""}}`,
	}
	for what, lie := range lies {
		_, err := zygote.ParseLearned([]byte(lie))
		require.Error(t, err, "%s", what)
	}
	b := newBench(t, remembers)
	b.others.known = []byte(lies["harmful"])
	require.False(t, b.start("", false, nil).warm, "as if there were none")
	require.Contains(t, b.log.String(), `another host says that versions import is ignored`)
	require.Contains(t, b.log.String(), `antigravity`)
	require.NotContains(t, b.others.learned(t).Modules, "antigravity", "the truth goes in its place")
	require.True(t, b.start("", false, nil).warm)
}

// TestOthersShadow gives a host a list that names a module as the version has one of its own: the version gets its own.
func TestOthersShadow(t *testing.T) {
	b := newBench(t, remembers)
	b.install("extra", "import os\nPID = os.getpid()\n")
	b.others.known = []byte(`{"modules": ["extra", "dependency"]}`)
	s := b.start("import extra\nprint(extra.WHOSE)", false, map[string]string{"extra.py": "WHOSE = 'own'\n"})
	require.True(t, s.warm, "%s", b.log)
	require.Contains(t, s.out.String(), "own")
	require.NotEqual(t, s.PID(), s.importer(t))
}

// TestLater has a version import more than those before it, before it is ready and after: a zygote with that is made in the
// background, not before its time.
func TestLater(t *testing.T) {
	b := newBench(t, remembers)
	var imports []string
	for i := range 10 {
		b.install(fmt.Sprintf("extra%d", i), "import os\nPID = os.getpid()\n")
		imports = append(imports, fmt.Sprintf("extra%d", i))
	}
	go_ := filepath.Join(b.dir, "go")
	late := "import threading\ndef late():\n    while not os.path.exists('" + go_ + "'): time.sleep(0.01)\n    import " +
		strings.Join(imports, ", ") + "\n    print('imported', flush=True)\nimport os\nthreading.Thread(target=late, daemon=True).start()"
	var pauses []time.Duration
	step := make(chan bool)
	b.pool.Pause(func(time.Duration) bool { return true })
	b.start("", false, nil)
	b.pool.WaitLate()
	b.pool.Pause(func(d time.Duration) bool { pauses = append(pauses, d); return <-step })
	s := b.start(late, false, nil)
	require.True(t, s.warm)
	require.NoError(t, os.WriteFile(go_, nil, 0o600))
	require.Eventually(t, func() bool { return strings.Contains(s.out.String(), "imported") }, 20*time.Second, time.Millisecond)
	step <- true // it has been ready for a while
	require.NotContains(t, b.others.learned(t).Modules, "extra5")
	step <- true // the zygote is old enough
	b.pool.WaitLate()
	b.pool.Wait()
	require.Equal(t, time.Minute, pauses[0])
	require.Contains(t, b.others.learned(t).Modules, "extra5")
	b.pool.Pause(func(time.Duration) bool { return true })
	last := b.start("import os, extra3\nprint('forked' if extra3.PID != os.getpid() else 'imported')", false, nil)
	require.Contains(t, last.out.String(), "forked")
}

// TestShadowedMeanwhile has a version with a module of its own in place of one that the zygote has, while that is about to be
// made anew for another reason, later: it is at once.
func TestShadowedMeanwhile(t *testing.T) {
	b := newBench(t, remembers)
	var imports []string
	for i := range 10 {
		imports = append(imports, fmt.Sprintf("extra%d", i))
		b.install(imports[i], "")
	}
	asked, step := make(chan bool, 10), make(chan bool)
	b.pool.Pause(func(time.Duration) bool { asked <- true; return <-step })
	defer close(step)
	b.start("", false, nil)
	<-asked
	require.True(t, b.start("import "+strings.Join(imports, ", "), false, nil).warm)
	<-asked
	step <- true // one of them has been ready for a while
	step <- true // both
	<-asked      // until the zygote is old enough

	own := map[string]string{"dependency.py": "PID = 0\n"}
	require.False(t, b.start("", false, own).warm)
	require.True(t, b.start("pass", false, own).warm, "%s", b.log)
}

// guilty works only in the process that imported it. Two other modules import it.
func guilty(b *bench) {
	b.install("culprit", "import os\nPID = os.getpid()\n")
	b.install("above", "import first\nfrom culprit import PID\n")
	b.install("hides", "try:\n    import culprit\nexcept ImportError:\n    culprit = None\n")
	b.install("first", "import os\nPID = os.getpid()\n")
	for i := range 12 {
		b.install(fmt.Sprintf("bystander%d", i), "import os\nPID = os.getpid()\n")
	}
}

const breaks = `import os, first, bystander1, bystander2, hides, bystander3, above, bystander4, bystander5, bystander6
if culprit_pid() != os.getpid(): sys.exit(3)
print("culprit" if hides.culprit else "hidden", first.PID != os.getpid(), bystander6.PID != os.getpid())`

func asked(code string) string {
	return strings.NewReplacer("culprit_pid()", "above.PID").Replace(code)
}

// TestCulprit has a version that does not come up when a certain module was imported before it was forked: that one is
// found, and left out from then on with what imports it, and with nothing else, here and on other hosts.
func TestCulprit(t *testing.T) {
	b := newBench(t, remembers)
	guilty(b)
	b.start(asked(breaks), false, nil)
	s := b.start(asked(breaks), false, nil)
	require.True(t, s.warm)
	require.EqualError(t, s.Err(), "the process ended with status 3")
	s = b.start(asked(breaks), true, nil)
	require.False(t, s.warm)
	require.Contains(t, b.log.String(), `versions are forked again" key=key "left out"=[culprit]`)
	t.Logf("%d probes", b.probes.Load())
	check := func(b *bench) {
		s := b.start(asked(breaks), false, nil)
		require.True(t, s.warm)
		require.Contains(t, s.out.String(), "culprit True True", "all but the culprit, and what imports it, was there before")
		require.NotEqual(t, s.PID(), s.importer(t))
	}
	check(b)
	told := b.others.learned(t)
	require.Equal(t, []string{"culprit"}, keys(told.LeftOut))
	require.Contains(t, told.Modules, "bystander6")
	b.pool.Close()
	b.open()
	check(b)
	fresh := newBench(t, remembers)
	guilty(fresh)
	fresh.others.known = b.others.known
	check(fresh)
	require.Zero(t, fresh.probes.Load())
}

func keys(m map[string]string) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// TestGiveUp has a version that does not come up when it is forked, whatever was imported before: none of its Key is forked
// any more. The next pool tries it once more, as this one does after a day.
func TestGiveUp(t *testing.T) {
	b := newBench(t, remembers)
	b.start("", false, nil)
	const knows = "if 'PORT=' not in open('/proc/self/environ').read(): sys.exit(3)"
	s := b.start(knows, false, nil)
	require.True(t, s.warm)
	require.EqualError(t, s.Err(), "the process ended with status 3")
	require.False(t, b.start(knows, true, nil).warm)
	require.Contains(t, b.log.String(), "not forked any more")
	require.Contains(t, b.log.String(), "whatever was imported before")
	require.False(t, b.start("", false, nil).warm)
	probes := b.probes.Load()
	for range 2 {
		b.pool.Close()
		b.open()
		require.True(t, b.start(knows, false, nil).warm, "it is tried again")
		require.False(t, b.start(knows, true, nil).warm)
		require.Contains(t, b.log.String(), "still do not come up")
		require.False(t, b.start("", false, nil).warm, "once")
		_, unforkable := b.pool.LeftOut("key")
		require.Contains(t, unforkable, "whatever was imported before")
	}
	require.Equal(t, probes, b.probes.Load(), "nothing is searched for again")
	b.pool.Backdate("key", 25*time.Hour)
	require.True(t, b.start("", false, nil).warm, "a day has passed")
	require.True(t, b.start("", false, nil).warm, "and it came up")
	b.pool.Close()
	b.open()
	_, unforkable := b.pool.LeftOut("key")
	require.Empty(t, unforkable)
	require.True(t, b.start("", false, nil).warm)
}

// TestFluke has a version fail once, when it is forked: nothing is blamed for it.
func TestFluke(t *testing.T) {
	b := newBench(t, remembers)
	b.start("", false, nil)
	once := "import os\nif not os.path.exists('" + filepath.Join(b.dir, "once") + "'): open('" + filepath.Join(b.dir, "once") + "', 'w'); sys.exit(3)"
	require.True(t, b.start(once, false, nil).warm)
	require.False(t, b.start(once, true, nil).warm)
	require.True(t, b.start(once, false, nil).warm)
	require.Empty(t, b.others.learned(t).LeftOut)
}

// TestVariables has a module change variables when it is imported, as some do to tell native libraries something: a forked
// version finds them as if it had imported it, but for its own.
func TestVariables(t *testing.T) {
	b := newBench(t, remembers+"os.environ['SET'] = 'by import'\nos.environ.pop('GONE', None)\nos.environ['PORT'] = '9'\nos.environ.setdefault('GIVEN', 'x')\n")
	const code = "import os\nprint(os.environ['SET'], 'GONE' in os.environ, os.environ['GIVEN'], os.environ['PORT'], os.popen('echo $SET').read())"
	cold := b.start(code, false, nil, "GONE=1", "GIVEN=by hand")
	require.Contains(t, cold.out.String(), "by import False by hand 9 by import")
	warm := b.start(code, false, nil, "GONE=1", "GIVEN=by hand")
	require.True(t, warm.warm)
	require.Contains(t, warm.out.String(), "by import False by hand 1 by import", "but for PORT, which only the version knows")
}

// TestThreads forks where a module has started a thread when it was imported. Python 3.12 and later warn of that, which would
// end a version whose warnings are errors: of our fork nothing is said, and the version's filters are its own.
func TestThreads(t *testing.T) {
	for _, python := range pythons(t) {
		b := newBenchOf(t, python, remembers+"import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n")
		const code = "import threading, warnings\nprint(threading.active_count(), [f[0] for f in warnings.filters])"
		cold := b.start(code, false, nil, "PYTHONWARNINGS=error")
		warm := b.start(code, false, nil, "PYTHONWARNINGS=error")
		require.True(t, warm.warm, "%s %s", python, b.log)
		lines := strings.Split(warm.out.String(), "\n")
		require.Len(t, lines, 4, "%s", warm.out)
		require.Contains(t, lines[1], "1 [", "the thread stays in the zygote")
		require.Equal(t, strings.Fields(strings.Split(cold.out.String(), "\n")[1])[1:], strings.Fields(lines[1])[1:])
		require.Empty(t, b.log.String())
	}
}

// TestRandom forks two versions: what was left to the system to seed before differs between them, what was seeded does not.
func TestRandom(t *testing.T) {
	b := newBench(t, remembers+"import multiprocessing, random\nOWN = random.Random()\nFIXED = random.Random(3)\nLATER = random.Random()\nLATER.seed(4)\n")
	const code = "import multiprocessing\nprint('own', dependency.OWN.random(), bytes(multiprocessing.current_process().authkey).hex())\n" +
		"print('same', dependency.FIXED.random(), dependency.LATER.random())"
	said := map[string][]string{}
	for range 3 {
		for _, line := range strings.Split(b.start(code, false, nil).out.String(), "\n") {
			if what, rest, ok := strings.Cut(line, " "); ok {
				said[what] = append(said[what], strings.Fields(rest)...)
			}
		}
	}
	require.Len(t, said["own"], 6)
	require.Len(t, set(said["own"]), 6)
	require.Len(t, set(said["same"]), 2)
}

func set(all []string) map[string]bool {
	m := map[string]bool{}
	for _, s := range all {
		m[s] = true
	}
	return m
}
