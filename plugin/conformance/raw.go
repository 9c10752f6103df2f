package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/plugin/sandbox"

	pluginpb "github.com/pexpress/pexpress/plugin/proto/v1"
)

// endTime is how long a builder may take to end by itself.
const endTime = 10 * time.Second

// raw is a builder that was started without isolation by a host of this package.
type raw struct {
	cmd      *exec.Cmd
	dir      string
	lifeline *os.File // its other end is the builder's
	first    chan string
	ended    chan struct{}
	reaping  sync.Mutex
	reaped   bool // its pid may be another process' by now
	words    *tail
	conn     *grpc.ClientConn
}

// tail keeps the beginning of what a builder says on its standard error.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[:min(len(p), max(0, 4<<10-len(t.b)))]...)
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(strings.TrimSpace(string(t.b)), "?")
}

// startRaw starts the builder with these variables beside the host's few.
func (s *suite) startRaw(env ...string) (*raw, error) {
	dir, err := os.MkdirTemp(s.dir, "s")
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p := &raw{dir: dir, lifeline: w, first: make(chan string, 1), ended: make(chan struct{}), words: &tail{}}
	program, err := exec.LookPath(s.opts.Command[0])
	if err == nil {
		program, err = filepath.Abs(program)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	p.cmd = exec.Command(program, s.opts.Command[1:]...)
	for _, name := range []string{"PATH", "HOME"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+os.Getenv(name))
	}
	p.cmd.Env = append(p.cmd.Env, "TMPDIR="+dir, "PLUGIN_UNIX_SOCKET_DIR="+dir, "PEXPRESS_LIFELINE=1", "PLUGIN_MIN_PORT=10000", "PLUGIN_MAX_PORT=25000")
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.ExtraFiles = []*os.File{r}
	p.cmd.Stderr = p.words
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = time.Second
	out, pw, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	p.cmd.Stdout = pw
	err = p.cmd.Start()
	pw.Close()
	if err != nil {
		return nil, errors.Join(err, w.Close(), out.Close())
	}
	go func() {
		defer out.Close()
		b := bufio.NewReaderSize(out, 8<<10)
		line, _ := b.ReadSlice('\n') // what is longer is no handshake
		p.first <- string(line)
		_, _ = io.Copy(io.Discard, b)
	}()
	go p.reap()
	return p, nil
}

// host are the variables of a host that offers these versions.
func host(versions string) []string {
	return []string{"PEXPRESS_PLUGIN=be64db6a-builder", "PLUGIN_PROTOCOL_VERSIONS=" + versions}
}

// reap waits for the builder's end, and ends what it has left in its group while its pid is still its own.
func (p *raw) reap() {
	for unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.killGroup()
	p.reaping.Lock()
	_ = p.cmd.Wait()
	p.reaped = true
	p.reaping.Unlock()
	close(p.ended)
}

func (p *raw) killGroup() {
	p.reaping.Lock()
	defer p.reaping.Unlock()
	if !p.reaped {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// close ends the builder and all of its group.
func (p *raw) close() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	p.killGroup()
	<-p.ended
	_ = p.lifeline.Close()
}

// line waits for the handshake: "" if the builder ended without one.
func (p *raw) line(limit time.Duration) (string, error) {
	select {
	case line := <-p.first:
		if line == "" {
			// Its last words arrive on another pipe: they are all there once it has ended.
			p.endsBy(endTime)
		}
		return strings.TrimSuffix(line, "\n"), nil
	case <-time.After(limit):
		return "", fmt.Errorf("no line on its standard output after %s%s", limit, p.said())
	}
}

func (p *raw) said() string {
	if words := p.words.String(); words != "" {
		return "; it said: " + words
	}
	return ""
}

// endsBy waits until the builder has ended by itself.
func (p *raw) endsBy(limit time.Duration) bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(limit):
		return false
	}
}

// dial connects to the socket that a handshake names.
func (p *raw) dial(line string) error {
	fields := strings.Split(line, "|")
	if len(fields) < 5 {
		return fmt.Errorf("the handshake is %.200q", line)
	}
	conn, err := grpc.NewClient("unix://"+fields[3], grpc.WithTransportCredentials(insecure.NewCredentials()))
	p.conn = conn
	return err
}

// connect starts the builder and connects to it.
func (s *suite) connect(env ...string) (*raw, error) {
	p, err := s.startRaw(append(host("1"), env...)...)
	if err != nil {
		return nil, err
	}
	line, err := p.line(s.opts.Timeout)
	if err == nil {
		err = p.dial(line)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// observer is a scoped CAS that keeps what was asked for in vain.
type observer struct {
	*sandbox.Scoped
	mu     sync.Mutex
	vainly []digest.Digest
}

// Get implements cache.CAS.
func (o *observer) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if !o.Has(d) {
		o.mu.Lock()
		o.vainly = append(o.vainly, d)
		o.mu.Unlock()
	}
	return o.Scoped.Get(ctx, d)
}

// build has the builder build an Action, and returns what it asked for that the Action does not declare.
func (s *suite) buildRaw(ctx context.Context, p *raw, n int, action digest.Digest) (*repb.ActionResult, []digest.Digest, error) {
	o := &observer{Scoped: sandbox.Scope(s.cas, action)}
	socket := filepath.Join(p.dir, fmt.Sprintf("cas%d", n))
	endpoint, err := sandbox.ServeCAS(socket, o)
	if err != nil {
		return nil, nil, err
	}
	defer endpoint.Close()
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	resp, err := pluginpb.NewBuilderClient(p.conn).Build(ctx, &pluginpb.BuildRequest{
		ActionDigest: action.Proto(), CasEndpoint: "unix://" + socket,
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	return resp.GetActionResult(), o.vainly, err
}
