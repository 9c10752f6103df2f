package examples

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal with a program on it.
type terminal struct {
	t    *testing.T
	ptmx *os.File
	tty  *os.File
	cmd  *exec.Cmd
	mu   sync.Mutex
	out  bytes.Buffer
	read chan struct{}
}

// openTerminal runs a program on a terminal of that size.
func openTerminal(t *testing.T, cmd *exec.Cmd, columns, rows uint16) *terminal {
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	term := &terminal{t: t, ptmx: ptmx, tty: tty, cmd: cmd, read: make(chan struct{})}
	term.resize(columns, rows)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	go func() {
		defer close(term.read)
		b := make([]byte, 4096)
		for {
			n, err := ptmx.Read(b)
			term.mu.Lock()
			term.out.Write(b[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		tty.Close()
		ptmx.Close()
		<-term.read
	})
	return term
}

func (term *terminal) resize(columns, rows uint16) {
	require.NoError(term.t, unix.IoctlSetWinsize(int(term.ptmx.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}))
}

func (term *terminal) all() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.out.String()
}

var sequence = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// frame returns the lines of the last whole frame.
func (term *terminal) frame() []string {
	frames := strings.Split(term.all(), "\x1b[?2026h\x1b[H")
	for i := len(frames) - 1; i > 0; i-- {
		if whole, _, ok := strings.Cut(frames[i], "\x1b[?2026l"); ok {
			return strings.Split(strings.ReplaceAll(sequence.ReplaceAllString(whole, ""), "\r", ""), "\n")
		}
	}
	return nil
}

// shows waits for a frame that matches.
func (term *terminal) shows(pattern string) []string {
	term.t.Helper()
	re := regexp.MustCompile(pattern)
	var last []string
	for range 600 {
		if last = term.frame(); re.MatchString(strings.Join(last, "\n")) {
			return last
		}
		time.Sleep(50 * time.Millisecond)
	}
	require.Fail(term.t, "not shown", "%s in\n%s", pattern, strings.Join(last, "\n"))
	return nil
}

// type types, and ends waits for the program, which must leave the terminal as it was.
func (term *terminal) ends(typed string, before *unix.Termios) {
	term.t.Helper()
	_, err := term.ptmx.WriteString(typed)
	require.NoError(term.t, err)
	require.NoError(term.t, term.cmd.Wait(), "%s", term.all())
	after, err := unix.IoctlGetTermios(int(term.tty.Fd()), unix.TCGETS)
	require.NoError(term.t, err)
	require.Equal(term.t, before, after)
	require.Eventually(term.t, func() bool { return strings.HasSuffix(term.all(), "\x1b[?7h\x1b[?25h\x1b[?1049l") },
		10*time.Second, 10*time.Millisecond, "%q", term.all())
}

func (h *host) watching(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "pexpress"), append([]string{"status", "--watch"}, args...)...)
	cmd.Dir = h.project
	cmd.Env = append(h.env(), "TERM=xterm-256color")
	return cmd
}

// TestStatusWatch watches a codeserver on a terminal: a deploy, requests, a narrower window, the server's restart.
func TestStatusWatch(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	term := openTerminal(t, h.watching("--every", "500ms"), 160, 40)
	before, err := unix.IoctlGetTermios(int(term.tty.Fd()), unix.TCGETS)
	require.NoError(t, err)
	before.Lflag |= unix.ECHO | unix.ICANON // the program may have begun
	term.shows("the codeserver serves nothing yet")
	address, _ := h.deploy()
	lines := term.shows(`web  ` + regexp.QuoteMeta(address) + `\n.*VERSION +STATE +AGE +CPU +MEMORY(?s:.*)\n\* +[0-9a-f]{12} +ready`)
	require.Contains(t, strings.Join(lines, "\n"), "last start: load deps")
	require.Contains(t, term.all(), "\x1b[32mready", "in colour")
	asking := true
	var asked sync.WaitGroup
	var mu sync.Mutex
	asked.Go(func() {
		for {
			mu.Lock()
			more := asking
			mu.Unlock()
			if !more {
				return
			}
			h.get(address, "/")
			time.Sleep(20 * time.Millisecond)
		}
	})
	// CPU, memory, peak, processes, requests a second, latencies, requests, failed, open, restarts
	term.shows(`ready +\d+s +\d+ % +[\d.]+ MiB +[\d.]+ MiB +1 +[1-9][\d.]* +[\d.]+ ms +[\d.]+ ms +\d+ +0 +[01] +0`)
	mu.Lock()
	asking = false
	mu.Unlock()
	asked.Wait()

	term.resize(50, 4)
	lines = term.shows(`lines? more`)
	require.Len(t, lines, 4)
	for _, l := range lines {
		require.LessOrEqual(t, len([]rune(l)), 50)
	}
	term.resize(160, 40)
	term.shows(`(?m)^ +isolation: |last start`)
	h.stop()
	term.shows("the codeserver does not answer")
	h.start()
	term.shows(`^pexpress status.*\n\nweb .*\n.*\n\* +[0-9a-f]{12} +ready`)
	h.run("remove", "web")
	term.shows("the codeserver serves nothing yet")
	term.ends("\x03", before)

	t.Run("NO_COLOR, and q", func(t *testing.T) {
		cmd := h.watching()
		cmd.Env = append(cmd.Env, "NO_COLOR=1")
		term := openTerminal(t, cmd, 80, 24)
		term.shows("serves nothing yet")
		require.NotRegexp(t, `\x1b\[[0-9;]*m`, term.all())
		term.ends("q", before)
	})
	t.Run("suspended", func(t *testing.T) {
		term := openTerminal(t, h.watching(), 80, 24)
		term.shows("serves nothing yet")
		require.NoError(t, term.cmd.Process.Signal(unix.SIGTSTP))
		require.Eventually(t, func() bool { return strings.HasSuffix(term.all(), "\x1b[?1049l") }, 10*time.Second, 10*time.Millisecond, "%q", term.all)
		require.NoError(t, term.cmd.Process.Signal(unix.SIGCONT))
		require.Eventually(t, func() bool { return strings.Count(term.all(), "\x1b[?1049h") == 2 }, 10*time.Second, 10*time.Millisecond)
		term.ends("q", before)
	})
}

// TestStatusWatchLines watches where there is no terminal: a line for each change, and none for what is only used.
func TestStatusWatchLines(t *testing.T) {
	h := newHost(t, webProject("one"))
	h.start()
	lines := func(args ...string) (next func() string, end func()) {
		cmd := h.watching(args...)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		cmd.Stderr = os.Stderr
		require.NoError(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		scan := bufio.NewScanner(out)
		return func() string {
				require.True(t, scan.Scan())
				return scan.Text()
			}, func() {
				require.NoError(t, cmd.Process.Signal(os.Interrupt))
				for scan.Scan() {
					require.Fail(t, "another line", "%s", scan.Text())
				}
				require.NoError(t, cmd.Wait())
			}
	}
	text, endText := lines()
	events, endEvents := lines("--output", "json")
	address, _ := h.deploy()
	var seen []string
	for !strings.HasSuffix(strings.Join(seen, "\n"), "ready (serves)") {
		seen = append(seen, text())
		require.Regexp(t, `^\d\d:\d\d:\d\d  web`, seen[len(seen)-1])
		require.NotContains(t, seen[len(seen)-1], "\x1b")
		require.Less(t, len(seen), 10, "%s", strings.Join(seen, "\n"))
	}
	require.Contains(t, seen[len(seen)-1], "web at "+address)
	for range 3 {
		h.get(address, "/")
	}
	status := h.run("status").stdout
	require.Regexp(t, `uses [\d.]+ m?s of a processor so far, [\d.]+ MiB of memory \(most [\d.]+ MiB\) in 1 process; 3 requests, 0 failed, 0 under way, half within`, status)
	h.run("remove", "web")
	for line := text(); !strings.HasSuffix(line, "web  removed"); line = text() {
		require.NotContains(t, line, "(serves)")
	}
	endText()
	for {
		var e map[string]any
		require.NoError(t, json.Unmarshal([]byte(events()), &e))
		if e["event"] == "removed" {
			require.Equal(t, "web", e["location"])
			break
		}
		require.Equal(t, "location", e["event"])
	}
	endEvents()
	r, err := h.try("status", "--watch", "--every", "1ms")
	require.Error(t, err)
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, "the least is 500ms")
	r, err = h.try("status", "--every", "1s")
	require.Error(t, err)
	require.Equal(t, 2, r.code)
}
