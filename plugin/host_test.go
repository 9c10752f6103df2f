package plugin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// hostMain is the main of the test's host, which the tests kill or run where isolation is not allowed. Its arguments
// are "plain" or "isolated", a seccomp filter's name or "", and the builder's command.
func hostMain(args []string) int {
	isolate, filter, command := args[0] == "isolated", args[1], args[2:]
	if err := forbid(filter); err != nil {
		fmt.Println("cannot forbid:", err)
		return 1
	}
	fmt.Println("starting")
	p, err := Start(context.Background(), Options{
		Command: command, Sandbox: isolate, Report: func(s string) { fmt.Println("report:", s) },
	})
	if err != nil {
		fmt.Println("start:", err)
		return 1
	}
	defer p.Close()
	fmt.Println("building")
	cas := newStore()
	if _, err := p.Build(context.Background(), cas, newAction(&testing.T{}, cas)); err != nil {
		fmt.Println("build:", err)
		return 1
	}
	fmt.Println("built")
	return 0
}

// host starts a host and returns it with the lines it prints.
func host(t *testing.T, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(self(t), append([]string{hostArg}, args...)...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

// TestHostKilled checks that builders die with a host that has no chance to end them.
func TestHostKilled(t *testing.T) {
	tests := []struct {
		name, until string
		command     func(mark string) []string
	}{
		{"building", "building", func(m string) []string { return []string{self(t), builderArg, "hang", m} }},
		{"starting", "starting", func(m string) []string { return []string{self(t), builderArg, "start-hang", m} }},
		// Not written in Go: it does not know of the lifeline.
		{"foreign", "starting", func(m string) []string { return []string{"sleep", m} }},
	}
	for _, tt := range tests {
		for _, how := range []string{"plain", "isolated"} {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				t.Parallel()
				mark := marker()
				cmd, lines := host(t, append([]string{how, ""}, tt.command(mark)...)...)
				for lines.Scan() && lines.Text() != tt.until {
				}
				require.Equal(t, tt.until, lines.Text())
				require.Eventually(t, func() bool { return len(processes(mark)) > 1 }, soon, time.Millisecond, "no builder")
				time.Sleep(50 * time.Millisecond) // so that it is at work, not about to begin
				require.NoError(t, cmd.Process.Kill())
				_ = cmd.Wait()
				requireGone(t, mark)
			})
		}
	}
}

// TestLifeline checks that the lifeline alone ends a builder: where there is no parent-death signal it has to.
func TestLifeline(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	mark := marker()
	cmd := exec.Command(self(t), builderArg, "good", mark)
	cmd.Env = append(os.Environ(), handshake.MagicCookieKey+"="+handshake.MagicCookieValue, "PEXPRESS_LIFELINE=1",
		"PLUGIN_PROTOCOL_VERSIONS=1")
	cmd.ExtraFiles = []*os.File{r}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	r.Close()
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	socket := strings.Split(line, "|")[3]
	defer os.Remove(socket)
	require.NotEmpty(t, processes(mark))
	require.NoError(t, w.Close())
	go func() { _, _ = io.Copy(io.Discard, out) }()
	require.Error(t, cmd.Wait())
	require.Empty(t, processes(mark))
}

// TestNotAllowed runs a host where the kernel refuses what isolation is made of, as container runtimes and AppArmor do.
func TestNotAllowed(t *testing.T) {
	for filter, why := range map[string]string{"namespaces": "fork/exec", "mounts": "make mounts private"} {
		t.Run(filter, func(t *testing.T) {
			mark := marker()
			cmd, lines := host(t, "isolated", filter, self(t), builderArg, "good", mark)
			var said []string
			for lines.Scan() {
				said = append(said, lines.Text())
			}
			if len(said) > 0 && strings.HasPrefix(said[0], "cannot forbid") {
				t.Skip(said[0])
			}
			require.NoError(t, cmd.Wait())
			require.Len(t, said, 4, "%q", said)
			require.Contains(t, said[1], "report: builders run without isolation, this machine does not allow it: "+why)
			require.Contains(t, said[1], "operation not permitted")
			require.Equal(t, []string{"starting", said[1], "building", "built"}, said)
			requireGone(t, mark)
		})
	}
}
