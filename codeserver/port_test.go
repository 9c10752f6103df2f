package codeserver

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPorts gives ports that differ, that nobody listens on, and that no connection gets from the kernel.
func TestPorts(t *testing.T) {
	p := &ports{last: lastPort - 10}
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstPort))
	if err == nil {
		defer taken.Close()
	}
	from, to := ofKernel()
	seen := map[int]bool{firstPort: true}
	for range 100 {
		port, err := p.give()
		require.NoError(t, err)
		require.False(t, seen[port], "%d", port)
		require.False(t, port >= from && port <= to, "%d", port)
		seen[port] = true
	}
	p.last = p.given[1] - 1 // as if all others were taken and its turn came again
	port, err := p.give()
	require.NoError(t, err)
	require.NotContains(t, seen, port)
}
