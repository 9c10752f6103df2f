package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/plugin/sandbox/within"
)

// initialised is what the runtime says of a package's initialisation with GODEBUG=inittrace=1.
var initialised = regexp.MustCompile(`(?m)^init (\S+) @.* ms clock, (\d+) bytes, \d+ allocs$`)

// TestInit checks that no package makes ready at each start what most commands, and builders, never need. What is generated,
// and the parts of the codeserver that come with its client, are not asked for it.
func TestInit(t *testing.T) {
	seen := initTrace(t, "--version")
	require.Contains(t, seen, "main")
	for name, bytes := range seen {
		ours := name == "main" || strings.HasPrefix(name, module+"plugin") || strings.HasPrefix(name, module+"cache")
		if ours && !strings.Contains(name, "/proto/") && bytes > 8<<10 {
			t.Errorf("%s takes %d bytes when it is initialised: lazy.Regexp and sync.OnceValue put that off", name, bytes)
		}
	}
}

// TestInitOfSandbox checks that the inside of a sandbox comes before most packages of the program are made ready for nothing.
func TestInitOfSandbox(t *testing.T) {
	seen := initTrace(t, within.Arg)
	require.Contains(t, seen, "os")
	require.Less(t, len(seen), 40, "within imports something that makes it wait for others: %v", seen)
}

// initTrace runs the program, and returns how many bytes each package took that was initialised.
func initTrace(t *testing.T, args ...string) map[string]int {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var trace strings.Builder
	cmd.Stderr = &trace
	_ = cmd.Run() // a sandbox without its arguments fails
	seen := map[string]int{}
	for _, m := range initialised.FindAllStringSubmatch(trace.String(), -1) {
		n, err := strconv.Atoi(m[2])
		require.NoError(t, err)
		seen[m[1]] = n
	}
	return seen
}
