package project

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/pexpress/pexpress/cache/lazy"
)

// Limits are what a version's processes may use together; 0 is no limit.
type Limits struct {
	Memory    int64 // bytes
	CPUMillis int64 // thousandths of a processor
	Pids      int64 // processes and threads
	OpenFiles int64 // of each process
	Tmp       int64 // bytes in /tmp
}

var sizeForm = lazy.Regexp(`^([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(B|KiB|MiB|GiB|TiB)$`)

// A codeserver takes limits between these; those of the other keys are in readLimits.
const (
	leastCPU = 10
	mostCPU  = 1_000_000
	mostPids = 4_000_000
)

// readLimits reads a location's table limits.
func readLimits(t *table) Limits {
	sub := t.sub("limits")
	if sub == nil {
		return Limits{}
	}
	l := Limits{Pids: sub.count("pids", 2), OpenFiles: sub.count("open-files", 64)}
	l.Memory, l.Tmp = sub.size("memory", 8), sub.size("tmp", 1)
	if l.Pids > mostPids {
		sub.errorf("pids", "must be at most %d, it is %d", mostPids, l.Pids)
	}
	sub.known["cpu"] = true
	cpu, given := sub.m["cpu"]
	is := fmt.Sprint(cpu)
	switch n := cpu.(type) {
	case int64:
		l.CPUMillis = 1000 * min(max(n, 0), math.MaxInt32)
	case float64:
		if n > 0 { // not so of NaN
			l.CPUMillis = int64(math.Round(1000 * min(n, math.MaxInt32)))
		}
	default:
		is = typeName(cpu)
	}
	switch {
	case given && l.CPUMillis == 0:
		sub.errorf("cpu", "must be a number of processors such as 1.5, it is %s", is)
	case given && l.CPUMillis < leastCPU:
		sub.errorf("cpu", "must be at least 0.01, it is %s", is)
	case l.CPUMillis > mostCPU:
		sub.errorf("cpu", "must be at most 1000, it is %s", is)
	}
	sub.done()
	return l
}

// size returns a number of bytes, so many MiB or more, or 0 if the key is absent.
func (t *table) size(key string, least int64) int64 {
	s := t.string(key)
	if t.m[key] == nil {
		return 0
	}
	unit := map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
	if m := sizeForm().FindStringSubmatch(s); m != nil {
		n, _ := strconv.ParseFloat(m[1], 64)
		if bytes := int64(min(n*unit[m[2]], math.MaxInt64/2)); bytes > 0 {
			if bytes < least<<20 {
				t.errorf(key, "must be at least %dMiB, it is %q", least, s)
			}
			return bytes
		}
	}
	t.errorf(key, `must be a size such as "512MiB" or "1.5GiB", it is %q`, s)
	return 0
}

// count returns a whole number of least or more, or 0 if the key is absent.
func (t *table) count(key string, least int64) int64 {
	n := get[int64](t, key, "an integer")
	if _, given := t.m[key].(int64); given && n < least {
		t.errorf(key, "must be at least %d, it is %d", least, n)
	}
	return n
}

var variableName = lazy.Regexp(`^[A-Za-z_][A-Za-z0-9_]*$`)

// readSecretEnv reads the names of secrets that become variables of the location's process.
func readSecretEnv(t *table, env map[string]string) []string {
	names := t.strings("secret-env")
	for _, name := range names {
		if _, twice := env[name]; twice {
			t.errorf("secret-env", "names %s, which is in env, too", name)
		}
		if !variableName().MatchString(name) {
			t.errorf("secret-env", "must hold names of environment variables, %q is none", name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
