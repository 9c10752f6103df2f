package main

import (
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// TestCanaryFlags: a percentage may have its sign.
func TestCanaryFlags(t *testing.T) {
	parse := func(args ...string) canary {
		var trial canary
		c := &cobra.Command{}
		trial.flags(c)
		require.NoError(t, c.ParseFlags(args))
		require.NoError(t, trial.check(c))
		return trial
	}
	none := parse()
	require.Nil(t, none.message(), "nobody asked for one")
	for _, args := range [][]string{
		{"--canary", "10%", "--canary-errors", "2%", "--canary-latency=150%"},
		{"--canary=10", "--canary-errors", "2", "--canary-latency", "150"},
		{"--canary", "10 %", "--canary-errors=2", "--canary-latency", "150"},
	} {
		trial := parse(args...)
		m := trial.message()
		require.Equal(t, []int32{10, 2, 150}, []int32{m.GetPercent(), m.GetMaxMoreErrorsPercent(), m.GetMaxLatencyPercent()}, args)
	}
	trial := parse("--canary", "99%")
	require.EqualValues(t, 1, trial.message().GetMaxMoreErrorsPercent(), "unless said otherwise")
}
