package project

import (
	"math"
	"regexp"
	"slices"
	"strconv"
)

// Limits are what a version's processes may use together; 0 is no limit.
type Limits struct {
	Memory    int64 // bytes
	CPUMillis int64 // thousandths of a processor
	Pids      int64 // processes and threads
	OpenFiles int64 // of each process
	Tmp       int64 // bytes in /tmp
}

var sizeForm = regexp.MustCompile(`^([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(B|KiB|MiB|GiB|TiB)$`)

// readLimits reads a location's table limits.
func readLimits(t *table) Limits {
	sub := t.sub("limits")
	if sub == nil {
		return Limits{}
	}
	l := Limits{Pids: sub.positive("pids"), OpenFiles: sub.positive("open-files")}
	l.Memory, l.Tmp = sub.size("memory"), sub.size("tmp")
	sub.known["cpu"] = true
	cpu, given := sub.m["cpu"]
	switch n := cpu.(type) {
	case int64:
		l.CPUMillis = 1000 * min(max(n, 0), math.MaxInt32)
	case float64:
		if n > 0 { // not so of NaN
			l.CPUMillis = int64(math.Round(1000 * min(n, math.MaxInt32)))
		}
	}
	if given && l.CPUMillis == 0 {
		sub.errorf("cpu", "must be a number of processors such as 1.5, it is %v", cpu)
	}
	sub.done()
	return l
}

// size returns a number of bytes above 0, or 0 if the key is absent.
func (t *table) size(key string) int64 {
	s := t.string(key)
	if t.m[key] == nil {
		return 0
	}
	unit := map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
	if m := sizeForm.FindStringSubmatch(s); m != nil {
		n, _ := strconv.ParseFloat(m[1], 64)
		if bytes := int64(min(n*unit[m[2]], math.MaxInt64/2)); bytes > 0 {
			return bytes
		}
	}
	t.errorf(key, `must be a size such as "512MiB" or "1.5GiB", it is %q`, s)
	return 0
}

// positive returns a whole number above 0, or 0 if the key is absent.
func (t *table) positive(key string) int64 {
	n := get[int64](t, key, "an integer")
	if _, given := t.m[key].(int64); given && n <= 0 {
		t.errorf(key, "must be more than 0, it is %d", n)
	}
	return n
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// readSecretEnv reads the names of secrets that become variables of the location's process.
func readSecretEnv(t *table, env map[string]string) []string {
	names := t.strings("secret-env")
	for _, name := range names {
		if _, twice := env[name]; twice {
			t.errorf("secret-env", "names %s, which is in env, too", name)
		}
		if !variableName.MatchString(name) {
			t.errorf("secret-env", "must hold names of environment variables, %q is none", name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
