package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/codeserver/bounds"
	"github.com/pexpress/pexpress/plugin/project"
)

// TestLeastLimits: a project is refused for what a codeserver would refuse, and for no more.
func TestLeastLimits(t *testing.T) {
	load := func(limit string) error {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "pexpress.toml"),
			[]byte("[location.web]\npreset = \"module\"\nmodule = \"web\"\nlimits = { "+limit+" }\n"), 0o644))
		_, err := project.Load(dir)
		return err
	}
	for form, bound := range map[string]int64{
		`memory = "%dB"`: bounds.LeastMemory, `tmp = "%dB"`: bounds.LeastTmp, `pids = %d`: bounds.LeastPids, `open-files = %d`: bounds.LeastOpenFiles,
		`cpu = %de-3`: bounds.LeastCPU,
	} {
		require.NoError(t, load(fmt.Sprintf(form, bound)))
		require.ErrorContains(t, load(fmt.Sprintf(form, bound-1)), "pexpress.toml:4: location.web.limits.")
	}
	require.NoError(t, load(fmt.Sprintf("cpu = %de-3", bounds.MostCPU)))
	require.ErrorContains(t, load(fmt.Sprintf("cpu = %de-3", bounds.MostCPU+1)), "limits.cpu must be at most 1000")
	require.NoError(t, load(fmt.Sprintf("pids = %d", bounds.MostPids)))
	require.ErrorContains(t, load(fmt.Sprintf("pids = %d", bounds.MostPids+1)), "limits.pids must be at most 4000000")
}
