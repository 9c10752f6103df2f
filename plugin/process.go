package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	hclog "github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	pluginpb "github.com/pexpress/pexpress/plugin/proto/v1"
	"github.com/pexpress/pexpress/plugin/sandbox"
)

// Options say how to start a builder.
type Options struct {
	// Command is the builder's program and arguments.
	Command []string
	// Sandbox keeps the builder from the network and all files but its own program.
	Sandbox bool
	// ReadOnly are further files and directories that a sandboxed builder may read, such as an interpreter's.
	ReadOnly []string
	// Report is told once what of the isolation this machine does not allow; nil for nobody.
	Report func(string)
	// StartTimeout and BuildTimeout bound how long the builder may take; 20 s and 10 min if 0.
	StartTimeout, BuildTimeout time.Duration
}

// Process is a builder that runs. It implements Builder and may build several Actions at once.
type Process struct {
	name    string
	dir     string
	opts    Options
	client  *goplugin.Client
	stub    pluginpb.BuilderClient
	launch  *sandbox.Launched
	log     *tailWriter
	mu      sync.Mutex
	builds  int
	closing bool
}

// Start starts a builder. It ends with Close, and in any case when this process does.
func Start(ctx context.Context, opts Options) (*Process, error) {
	if len(opts.Command) == 0 {
		return nil, fmt.Errorf("%w: no command given", ErrBuilder)
	}
	opts.StartTimeout = orDefault(opts.StartTimeout, 20*time.Second)
	opts.BuildTimeout = orDefault(opts.BuildTimeout, 10*time.Minute)
	dir, err := sandbox.SocketDir()
	if err != nil {
		return nil, fmt.Errorf("%w: make a directory for its sockets: %w", ErrBuilder, err)
	}
	p := &Process{name: strings.Join(opts.Command, " "), dir: dir, opts: opts, log: &tailWriter{}}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// start starts the process, without isolation if this machine does not allow it.
func (p *Process) start(ctx context.Context) error {
	err := p.launchProcess(p.opts.Sandbox)
	if err != nil && p.opts.Sandbox && (p.launch == nil || !p.launch.Ran() || p.launch.SetupFailed()) {
		if p.opts.Report != nil {
			p.opts.Report("builders run without isolation, this machine does not allow it: " + reason(p, err))
		}
		p.client.Kill()
		p.log = &tailWriter{}
		err = p.launchProcess(false)
	}
	if err != nil {
		return err
	}
	return ctx.Err()
}

// reason says why a sandbox could not be set up.
func reason(p *Process, err error) string {
	if words := p.log.String(); words != "" {
		return words
	}
	return err.Error()
}

func (p *Process) launchProcess(isolate bool) error {
	launch, err := sandbox.Command(sandbox.Options{
		Command: p.opts.Command, Dir: p.dir, ReadOnly: p.opts.ReadOnly, Isolate: isolate,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBuilder, err)
	}
	p.launch = launch
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  handshake,
		Plugins:          goplugin.PluginSet{pluginName: &grpcPlugin{}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		RunnerFunc:       launch.Runner,
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: p.dir},
		StartTimeout:     p.opts.StartTimeout,
		Stderr:           p.log,
		SyncStdout:       io.Discard,
		SyncStderr:       io.Discard,
		Logger:           hclog.NewNullLogger(),
	})
	conn, err := p.client.Client()
	if err != nil {
		return p.failed("start", err)
	}
	raw, err := conn.Dispense(pluginName)
	if err != nil {
		return p.failed("start", err)
	}
	p.stub = raw.(pluginpb.BuilderClient)
	return nil
}

// Describe implements Builder.
func (p *Process) Describe(ctx context.Context) (Description, error) {
	ctx, cancel := context.WithTimeout(ctx, p.opts.StartTimeout)
	defer cancel()
	resp, err := p.stub.Describe(ctx, &pluginpb.DescribeRequest{}, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return Description{}, p.failed("describe itself", err)
	}
	return Description{resp.GetName(), resp.GetOutputVersion(), resp.GetKinds()}, nil
}

// Build implements Builder. The builder sees the blobs that the Action declares and those it writes itself, and its
// answer is checked before it is believed.
func (p *Process) Build(ctx context.Context, cas cache.CAS, action digest.Digest) (*repb.ActionResult, error) {
	ctx, cancel := context.WithTimeout(ctx, p.opts.BuildTimeout)
	defer cancel()
	p.mu.Lock()
	p.builds++
	socket := filepath.Join(p.dir, fmt.Sprintf("cas%d", p.builds))
	p.mu.Unlock()
	endpoint, err := sandbox.ServeCAS(socket, sandbox.Scope(cas, action))
	if err != nil {
		return nil, fmt.Errorf("%w: serve its CAS endpoint: %w", ErrBuilder, err)
	}
	defer endpoint.Close()
	resp, err := p.stub.Build(ctx, &pluginpb.BuildRequest{ActionDigest: action.Proto(), CasEndpoint: "unix://" + socket},
		grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return nil, p.buildError(ctx, err)
	}
	result := resp.GetActionResult()
	if err := checkResult(ctx, cas, action, result); err != nil {
		return nil, fmt.Errorf("%w: %s answered with a result that cannot be used: %w", ErrBuilder, p.name, err)
	}
	return result, nil
}

func (p *Process) buildError(ctx context.Context, err error) error {
	switch msg := status.Convert(err).Message(); status.Code(err) {
	case codes.InvalidArgument:
		return fmt.Errorf("%w: %s", ErrInvalidAction, strings.TrimPrefix(msg, ErrInvalidAction.Error()+": "))
	case codes.FailedPrecondition:
		return fmt.Errorf("%w: %s", ErrInputUnreadable, strings.TrimPrefix(msg, ErrInputUnreadable.Error()+": "))
	case codes.Unimplemented:
		return fmt.Errorf("%w: %s", ErrOutputVersion, strings.TrimPrefix(msg, ErrOutputVersion.Error()+": "))
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	if ctx.Err() != nil {
		p.launch.Kill()
		return p.failed("build", fmt.Errorf("no result after %s; it was ended", p.opts.BuildTimeout))
	}
	return p.failed("build", err)
}

// failed says what the builder did not do, and its last words.
func (p *Process) failed(what string, err error) error {
	err = fmt.Errorf("%w: %s did not %s: %w", ErrBuilder, p.name, what, err)
	if words := p.log.String(); words != "" {
		err = fmt.Errorf("%w\nits last words:\n%s", err, words)
	}
	return err
}

// Close ends the builder and all that it started.
func (p *Process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return nil
	}
	p.closing = true
	if p.launch != nil {
		// A builder keeps nothing of its own, so there is nothing to wait for.
		p.launch.Kill()
	}
	if p.client != nil {
		p.client.Kill()
	}
	return os.RemoveAll(p.dir)
}
