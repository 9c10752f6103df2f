package plugin

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	pluginpb "github.com/pexpress/pexpress/plugin/proto/v1"
	"github.com/pexpress/pexpress/plugin/sandbox"
)

// lastWordsTime is how long an error waits for what a builder that broke its connection wrote last: it may be under way
// in a pipe still when the connection's end is seen.
const lastWordsTime = 2 * time.Second

// maxMessageText bounds what of a builder's message becomes part of an error.
const maxMessageText = 16 << 10

// Process is a builder that runs. It implements Builder and may build several Actions at once.
type Process struct {
	name string
	dir  *sandbox.SocketDir
	opts Options

	// Set by Start.
	client    *goplugin.Client
	connected bool // client has a connection, which Kill closes
	stub      pluginpb.BuilderClient
	launch    *sandbox.Launched
	log       *tailWriter

	mu      sync.Mutex
	builds  int
	closing bool
	closed  sync.Once
}

// Describe implements Builder.
func (p *Process) Describe(ctx context.Context) (Description, error) {
	limited, cancel := limit(ctx, p.opts.StartTimeout)
	defer cancel()
	resp, err := p.stub.Describe(limited, &pluginpb.DescribeRequest{}, grpc.MaxCallRecvMsgSize(maxMessage))
	switch {
	case ctx.Err() != nil:
		return Description{}, fmt.Errorf("describe %s: %w", p.name, ctx.Err())
	case err != nil && limited.Err() != nil:
		return Description{}, p.timedOut("describe itself", p.opts.StartTimeout)
	case err != nil:
		return Description{}, p.failed("describe itself", err)
	}
	d := Description{resp.GetName(), resp.GetOutputVersion(), resp.GetKinds()}
	if err := checkDescription(d); err != nil {
		return Description{}, fmt.Errorf("%w: %s describes itself wrongly: %w", ErrBuilder, p.name, err)
	}
	return d, nil
}

// Build implements Builder. The builder sees the blobs that the Action declares and those it writes itself, and its
// answer is checked before it is believed.
func (p *Process) Build(ctx context.Context, cas cache.CAS, action digest.Digest) (*repb.ActionResult, error) {
	command, err := readCommand(ctx, cas, action)
	if err != nil {
		return nil, fmt.Errorf("%w: action %s: %w", ErrInputUnreadable, action, err)
	}
	socket, err := p.socket()
	if err != nil {
		return nil, err
	}
	scope := sandbox.Scope(cas, action)
	endpoint, err := sandbox.ServeCAS(socket, scope)
	if err != nil {
		return nil, fmt.Errorf("%w: serve its CAS endpoint: %w", ErrBuilder, err)
	}
	defer endpoint.Close()
	limited, cancel := limit(ctx, p.opts.BuildTimeout)
	defer cancel()
	req := &pluginpb.BuildRequest{ActionDigest: action.Proto(), CasEndpoint: "unix://" + socket}
	resp, err := p.stub.Build(limited, req, grpc.MaxCallRecvMsgSize(maxMessage))
	var result *repb.ActionResult
	if err == nil {
		result = resp.GetActionResult()
		if err = checkResult(limited, scope, command, result); err != nil {
			err = fmt.Errorf("%w: %s answered with %w: %w", ErrBuilder, p.name, ErrResult, err)
		}
	} else if limited.Err() == nil {
		err = p.buildError(err)
	}
	switch {
	case ctx.Err() != nil:
		// The builder is told as well; whether it listens or not, others may go on building in it.
		return nil, fmt.Errorf("build action %s: %w", action, ctx.Err())
	case err != nil && limited.Err() != nil:
		return nil, p.timedOut("build", p.opts.BuildTimeout)
	case err != nil:
		return nil, err
	}
	return result, nil
}

// limit returns a context that ends with ctx or after d. It has no deadline that gRPC could see and pass on: the
// builder's side would report it, sometimes before this side's clock does, and it would look like the builder's doing.
func limit(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	limited, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	timer := time.AfterFunc(d, cancel)
	return limited, func() {
		stop()
		timer.Stop()
		cancel()
	}
}

// timedOut ends a builder that hangs.
func (p *Process) timedOut(what string, after time.Duration) error {
	p.launch.Kill()
	return p.failed(what, fmt.Errorf("no answer after %s; it was ended", after))
}

// socket returns a new name for a CAS endpoint.
func (p *Process) socket() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return "", fmt.Errorf("%w: %s was closed", ErrBuilder, p.name)
	}
	p.builds++
	return filepath.Join(p.dir.Path, fmt.Sprintf("cas%d", p.builds)), nil
}

// buildError turns the status that a builder answered with into the errors of this package.
func (p *Process) buildError(err error) error {
	for code, sentinel := range map[codes.Code]error{
		codes.InvalidArgument:    ErrInvalidAction,
		codes.FailedPrecondition: ErrInputUnreadable,
		codes.Unimplemented:      ErrOutputVersion,
	} {
		if status.Code(err) == code {
			msg := strings.TrimPrefix(status.Convert(err).Message(), sentinel.Error()+": ")
			return fmt.Errorf("%w: %s", sentinel, printable(msg, maxMessageText))
		}
	}
	return p.failed("build", err)
}

// failed says what the builder did not do, and its last words.
func (p *Process) failed(what string, err error) error {
	p.mu.Lock()
	closing := p.closing
	p.mu.Unlock()
	st, answered := status.FromError(err)
	switch {
	case closing:
		err = errors.New("it was closed")
	case !answered || st.Code() == codes.Unavailable:
		// There is no connection, any more or at all: most likely there is no process either.
		state, ok := p.launch.Ended(lastWordsTime)
		if ok && answered {
			err = fmt.Errorf("it ended with %s", state)
		} else if ok && state != "signal: killed" { // by us, err says why
			err = fmt.Errorf("%w (it ended with %s)", err, state)
		}
	default:
		err = fmt.Errorf("%s: %s", st.Code(), printable(st.Message(), maxMessageText))
	}
	err = fmt.Errorf("%w: %s did not %s: %w", ErrBuilder, p.name, what, err)
	if words := p.log.String(); words != "" {
		err = fmt.Errorf("%w\nits last words:\n%s", err, words)
	}
	return err
}

// Close ends the builder and all that it started.
func (p *Process) Close() (err error) {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	p.closed.Do(func() {
		p.end()
		err = p.dir.Close()
	})
	return err
}

// end ends the process and waits until nothing of it is left. A builder keeps nothing of its own, so there is nothing
// to wait for before.
func (p *Process) end() {
	if p.launch == nil {
		return
	}
	p.launch.Kill()
	if p.connected {
		// Without a connection it would make one, only to close it, and fail to.
		p.client.Kill()
	}
	p.launch.Close()
}
