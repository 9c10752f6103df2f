package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// What a terminal is told; see xterm's control sequences. Lines that are too long are cut by the terminal itself, which
// knows how wide a letter is.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // another screen, no cursor, no wrapping
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	beginFrame  = "\x1b[?2026h\x1b[H"
	endLine     = "\x1b[K\r\n"
	endFrame    = "\x1b[K\x1b[J\x1b[?2026l"
)

// watchScreen is a terminal that a table is kept up to date on.
type watchScreen struct {
	out    *os.File
	in     *os.File // for keys, nil if it is no terminal
	before *unix.Termios
	colour bool
	board  *board
	lost   error // why the codeserver does not answer
}

// newScreen returns nil where the output is no terminal that a cursor can be moved on.
func newScreen(u *ui, stdin io.Reader) *watchScreen {
	out, ok := u.out.(*os.File)
	kind := os.Getenv("TERM")
	if u.json || !ok || !term.IsTerminal(int(out.Fd())) || kind == "" || kind == "dumb" {
		return nil
	}
	s := &watchScreen{out: out, colour: os.Getenv("NO_COLOR") == "", board: newBoard()}
	if in, ok := stdin.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		s.in = in
	}
	return s
}

// run shows the table until ctx ends or q is typed, and leaves the terminal as it was.
func (s *watchScreen) run(ctx context.Context, f *feed) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards s
	dirty := make(chan struct{}, 1)
	redraw := func() {
		select {
		case dirty <- struct{}{}:
		default:
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.follow(ctx, f, &mu, redraw) }()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGTSTP)
	defer signal.Stop(signals)
	mu.Lock()
	s.enter()
	mu.Unlock()
	defer s.leave()
	if s.before != nil {
		go keys(s.in, cancel)
	}
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	for {
		mu.Lock()
		s.draw(f.name)
		mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case sig := <-signals:
			if sig == unix.SIGTSTP {
				s.suspend()
			}
		case <-clock.C:
		case <-dirty:
			time.Sleep(20 * time.Millisecond) // for what comes with it
		}
	}
}

// follow keeps the board up to date. A codeserver that is away is waited for.
func (s *watchScreen) follow(ctx context.Context, f *feed, mu *sync.Mutex, redraw func()) error {
	for {
		fresh := newBoard()
		err := f.each(ctx, func(l *codeserverpb.Location) {
			mu.Lock()
			defer mu.Unlock()
			s.lost = nil
			if fresh != nil {
				s.board, fresh = fresh, nil
			}
			s.board.take(l, time.Now())
			redraw()
		})
		if ctx.Err() != nil || err != nil && status.Code(err) != codes.Unavailable {
			return err
		}
		if err == nil {
			err = errors.New("it ended the watch")
		}
		mu.Lock()
		s.lost = err
		mu.Unlock()
		redraw()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// enter takes the terminal: what is typed is not shown, and read at once.
func (s *watchScreen) enter() {
	if s.in != nil {
		if t, err := unix.IoctlGetTermios(int(s.in.Fd()), unix.TCGETS); err == nil {
			quiet := *t
			quiet.Lflag &^= unix.ECHO | unix.ICANON
			if unix.IoctlSetTermios(int(s.in.Fd()), unix.TCSETS, &quiet) == nil {
				s.before = t
			}
		}
	}
	_, _ = io.WriteString(s.out, enterScreen)
}

func (s *watchScreen) leave() {
	_, _ = io.WriteString(s.out, leaveScreen)
	if s.before != nil {
		_ = unix.IoctlSetTermios(int(s.in.Fd()), unix.TCSETS, s.before)
	}
}

// suspend gives the terminal back to the shell, as ^Z asks, until the shell says to go on.
func (s *watchScreen) suspend() {
	s.leave()
	// To this thread, which so does not go on until it is told to; one for the process may be another thread's to take.
	runtime.LockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
	runtime.UnlockOSThread()
	s.enter()
}

// keys ends the watch when q is typed.
func keys(in io.Reader, end func()) {
	b := make([]byte, 16)
	for {
		n, err := in.Read(b)
		if err != nil {
			return
		}
		if strings.ContainsAny(string(b[:n]), "qQ") {
			end()
			return
		}
	}
}

func (s *watchScreen) draw(name string) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width < 1 || height < 1 {
		width, height = 80, 24
	}
	now := time.Now()
	head := fmt.Sprintf("pexpress status  %s  %s", now.Format(time.TimeOnly), count(len(s.board.locations), "location"))
	lines := []line{{{text: head, style: bold}, {text: "   q ends", style: dim}}}
	if s.lost != nil {
		lines = append(lines, line{{text: "the codeserver does not answer, tried again each second: " + firstLine(s.lost.Error()), style: red}})
	}
	if len(s.board.locations) == 0 && s.lost == nil {
		text := "the codeserver serves nothing yet"
		if name != "" {
			text = "the codeserver has no location " + name
		}
		lines = append(lines, line{{text: text}})
	}
	lines = append(lines, s.board.lines(now)...)
	if len(lines) > height {
		more := len(lines) - height + 1
		lines = append(lines[:height-1], line{{text: fmt.Sprintf("… %s more: a higher window, or a location's name, shows them", count(more, "line")), style: dim}})
	}
	var b strings.Builder
	b.WriteString(beginFrame)
	for i, l := range lines {
		if i > 0 {
			b.WriteString(endLine)
		}
		l.write(&b, width, s.colour)
	}
	b.WriteString(endFrame)
	_, _ = io.WriteString(s.out, b.String())
}
