// Package bounds says how small the limits of a version may be, and how large, in the words of who writes them.
package bounds

import (
	"fmt"
	"strconv"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// The least that a version can be limited to: with less, the kernel or an interpreter's own start refuses.
const (
	LeastMemory    = 8 << 20
	LeastCPU       = 10 // the kernel gives a millisecond of every tenth of a second
	LeastPids      = 2
	LeastOpenFiles = 64
	LeastTmp       = 1 << 20
)

// The most that a version can be limited to.
const (
	MostCPU  = 1_000_000 // a thousand processors
	MostPids = 4_000_000 // the kernel takes 4,194,304 (PID_MAX_LIMIT), and what keeps a version comes on top of its own
)

// Check refuses limits that are too small or too large, by the names that they have in a project's configuration.
func Check(l *codeserverpb.Limits) error {
	for _, c := range []struct {
		name        string
		value, from int64
		text        func(int64) string
	}{
		{"memory", l.GetMemoryBytes(), LeastMemory, size},
		{"cpu", l.GetCpuMillis(), LeastCPU, processors},
		{"pids", l.GetPids(), LeastPids, number},
		{"open-files", l.GetOpenFiles(), LeastOpenFiles, number},
		{"tmp", l.GetTmpBytes(), LeastTmp, size},
	} {
		if c.value != 0 && c.value < c.from {
			return fmt.Errorf("the limit %s is %s: the least is %s", c.name, c.text(c.value), c.text(c.from))
		}
	}
	if l.GetCpuMillis() > MostCPU {
		return fmt.Errorf("the limit cpu is %s: the most is %s", processors(l.GetCpuMillis()), processors(MostCPU))
	}
	if l.GetPids() > MostPids {
		return fmt.Errorf("the limit pids is %d: the most is %d", l.GetPids(), MostPids)
	}
	return nil
}

// size is exact: what is a byte too small must not read like what is enough.
func size(n int64) string {
	unit, i := []string{"B", "KiB", "MiB", "GiB", "TiB"}, 0
	for ; n != 0 && n%1024 == 0 && i < len(unit)-1; i++ {
		n /= 1024
	}
	return number(n) + " " + unit[i]
}

func processors(millis int64) string { return strconv.FormatFloat(float64(millis)/1000, 'f', -1, 64) }

func number(n int64) string { return strconv.FormatInt(n, 10) }
