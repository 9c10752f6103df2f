package bounds_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/bounds"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func TestCheck(t *testing.T) {
	for want, l := range map[string]*codeserverpb.Limits{
		"the limit memory is 1 KiB: the least is 8 MiB":     {MemoryBytes: 1 << 10},
		"the limit memory is 8388607 B: the least is 8 MiB": {MemoryBytes: bounds.LeastMemory - 1},
		"the limit memory is -1 B: the least is 8 MiB":      {MemoryBytes: -1},
		"the limit cpu is 0.009: the least is 0.01":         {CpuMillis: bounds.LeastCPU - 1},
		"the limit cpu is 1000.001: the most is 1000":       {CpuMillis: bounds.MostCPU + 1},
		"the limit pids is 1: the least is 2":               {Pids: bounds.LeastPids - 1},
		"the limit pids is 4000001: the most is 4000000":    {Pids: bounds.MostPids + 1},
		"the limit open-files is 63: the least is 64":       {OpenFiles: bounds.LeastOpenFiles - 1},
		"the limit tmp is 512 KiB: the least is 1 MiB":      {TmpBytes: 512 << 10},
	} {
		require.EqualError(t, bounds.Check(l), want)
	}
	require.NoError(t, bounds.Check(nil))
	require.NoError(t, bounds.Check(&codeserverpb.Limits{
		MemoryBytes: bounds.LeastMemory, CpuMillis: bounds.LeastCPU, Pids: bounds.LeastPids, OpenFiles: bounds.LeastOpenFiles, TmpBytes: bounds.LeastTmp,
	}))
	require.NoError(t, bounds.Check(&codeserverpb.Limits{CpuMillis: bounds.MostCPU, Pids: bounds.MostPids}))
}
