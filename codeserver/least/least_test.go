package least_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/least"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func TestCheck(t *testing.T) {
	for want, l := range map[string]*codeserverpb.Limits{
		"the limit memory is 1 KiB: the least is 8 MiB":     {MemoryBytes: 1 << 10},
		"the limit memory is 8388607 B: the least is 8 MiB": {MemoryBytes: least.Memory - 1},
		"the limit memory is -1 B: the least is 8 MiB":      {MemoryBytes: -1},
		"the limit cpu is 0.009: the least is 0.01":         {CpuMillis: least.CPU - 1},
		"the limit cpu is 1000.001: the most is 1000":       {CpuMillis: least.MostCPU + 1},
		"the limit pids is 1: the least is 2":               {Pids: least.Pids - 1},
		"the limit pids is 4000001: the most is 4000000":    {Pids: least.MostPids + 1},
		"the limit open-files is 63: the least is 64":       {OpenFiles: least.OpenFiles - 1},
		"the limit tmp is 512 KiB: the least is 1 MiB":      {TmpBytes: 512 << 10},
	} {
		require.EqualError(t, least.Check(l), want)
	}
	require.NoError(t, least.Check(nil))
	require.NoError(t, least.Check(&codeserverpb.Limits{
		MemoryBytes: least.Memory, CpuMillis: least.CPU, Pids: least.Pids, OpenFiles: least.OpenFiles, TmpBytes: least.Tmp,
	}))
	require.NoError(t, least.Check(&codeserverpb.Limits{CpuMillis: least.MostCPU, Pids: least.MostPids}))
}
