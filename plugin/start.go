package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	pluginpb "github.com/pexpress/pexpress/plugin/proto/v1"
	"github.com/pexpress/pexpress/plugin/sandbox"
)

// Options say how to start a builder.
type Options struct {
	// Command is the builder's program and arguments.
	Command []string
	// Sandbox keeps the builder from the network and all files but its own program. The host's main must call
	// sandbox.InitMain.
	Sandbox bool
	// ReadOnly are further files and directories that a sandboxed builder may read, such as an interpreter's.
	ReadOnly []string
	// Env are further variables, name=value. What is built must not depend on them: they are for tests of that.
	Env []string
	// Report is told once what of the isolation this machine does not allow; nil for nobody.
	Report func(string)
	// StartTimeout and BuildTimeout bound how long the builder may take; 20 s and 10 min if 0.
	StartTimeout, BuildTimeout time.Duration
}

// Start starts a builder. It ends with Close, and in any case when this process does.
func Start(ctx context.Context, opts Options) (*Process, error) {
	if len(opts.Command) == 0 {
		return nil, fmt.Errorf("%w: no command given", ErrBuilder)
	}
	opts.StartTimeout = orDefault(opts.StartTimeout, 20*time.Second)
	opts.BuildTimeout = orDefault(opts.BuildTimeout, 10*time.Minute)
	dir, err := sandbox.NewSocketDir()
	if err != nil {
		return nil, fmt.Errorf("%w: make a directory for its sockets: %w", ErrBuilder, err)
	}
	p := &Process{name: strings.Join(opts.Command, " "), dir: dir, opts: opts}
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
	err := p.launchProcess(ctx, p.opts.Sandbox)
	if err == nil || p.launch == nil || ctx.Err() != nil {
		return err
	}
	why := p.launch.NotIsolated()
	if why == "" {
		return err
	}
	if p.opts.Report != nil {
		p.opts.Report("builders run without isolation, this machine does not allow it: " + why)
	}
	p.end()
	return p.launchProcess(ctx, false)
}

func (p *Process) launchProcess(ctx context.Context, isolate bool) error {
	log := &tailWriter{}
	launch, err := sandbox.Command(sandbox.Options{
		Command: p.opts.Command, Dir: p.dir.Path, ReadOnly: p.opts.ReadOnly, Isolate: isolate, Stderr: log,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBuilder, err)
	}
	p.launch, p.log, p.connected = launch, log, false
	// go-plugin bounds only the wait for the handshake. A builder that says it and then does not speak gRPC would be
	// waited for as long as gRPC tries to connect.
	limited, cancel := context.WithTimeout(ctx, p.opts.StartTimeout)
	defer cancel()
	keep := context.AfterFunc(limited, launch.Kill)
	p.client = goplugin.NewClient(p.clientConfig(launch))
	conn, err := p.client.Client()
	p.connected = err == nil
	var raw any
	if err == nil {
		raw, err = conn.Dispense(pluginName)
	}
	inTime := keep()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("start %s: %w", p.name, ctx.Err())
	case !inTime:
		return p.failed("start", fmt.Errorf("it was not ready after %s and was ended", p.opts.StartTimeout))
	case err != nil:
		if other := versionError(err); other != nil {
			return p.failed("start", other)
		}
		// The text is the builder's own in part.
		return p.failed("start", errors.New(printable(err.Error(), 1<<10)))
	}
	p.stub = raw.(pluginpb.BuilderClient)
	return nil
}

func (p *Process) clientConfig(launch *sandbox.Launched) *goplugin.ClientConfig {
	return &goplugin.ClientConfig{
		HandshakeConfig:  handshake,
		Plugins:          goplugin.PluginSet{pluginName: &grpcPlugin{}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		RunnerFunc: func(l hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			cmd.Env = append(cmd.Env, p.opts.Env...)
			return launch.Runner(l, cmd, dir)
		},
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: p.dir.Path},
		StartTimeout:     p.opts.StartTimeout + time.Minute, // launchProcess ends it before
		SyncStdout:       io.Discard,
		SyncStderr:       p.log,
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Off, Output: io.Discard}),
	}
}
