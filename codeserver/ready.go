package codeserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/codeserver/proc"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// dagsterService is the health service of a Dagster code server.
const dagsterService = "DagsterApi"

// The pause between two probes is what a deploy may wait for nothing. While nobody answers it grows with the time that a start takes
// anyway, from fastestPoll to pollEvery: that is a thirtieth of it. A version that answers that it cannot serve yet has work done, and
// a line written to its log, by each probe: it is asked ever less often, down to every slowestPoll.
const (
	fastestPoll = time.Millisecond
	pollEvery   = 5 * time.Millisecond
	slowestPoll = 250 * time.Millisecond
)

// probe asks a version once whether it can serve.
type probe func(ctx context.Context) error

// newProbe returns the entry's probe, the preset's own if it has none, and what to close after the last use.
func newProbe(e *codeserverpb.Entry, port int) (probe, func(), error) {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	nothing := func() {}
	switch r := e.GetReadiness().GetProbe().(type) {
	case *codeserverpb.Readiness_GrpcService:
		return probeGRPC(addr, r.GrpcService)
	case *codeserverpb.Readiness_HttpPath:
		return probeHTTP(addr, r.HttpPath), nothing, nil
	case *codeserverpb.Readiness_Tcp:
		return probeTCP(addr), nothing, nil
	}
	if e.GetPreset() == presetDagster {
		return probeGRPC(addr, dagsterService)
	}
	return probeTCP(addr), nothing, nil
}

func probeTCP(addr string) probe {
	return func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

func probeHTTP(addr, path string) probe {
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode < 200 || resp.StatusCode > 399 {
			return fmt.Errorf("%w: GET %s answers %s", errUnwell, path, resp.Status)
		}
		return nil
	}
}

// probeGRPC asks by gRPC's health checking protocol. The connection is made only once the port answers: gRPC's own
// retries are slower than ours.
func probeGRPC(addr, service string) (probe, func(), error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	tcp, health, up := probeTCP(addr), healthpb.NewHealthClient(conn), false
	ask := func(ctx context.Context) error {
		if !up {
			if err := tcp(ctx); err != nil {
				return err
			}
			up = true
		}
		resp, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("%w: its health is %s", errUnwell, resp.GetStatus())
		}
		return nil
	}
	return ask, func() { conn.Close() }, nil
}

// errUnwell says that a version answers, and that it cannot serve.
var errUnwell = errors.New("not able to serve")

// waitReady returns when the version can serve, or with why it does not: its process ended, or ctx did.
func waitReady(ctx context.Context, e *codeserverpb.Entry, port int, w *worker.Worker) error {
	ask, done, err := newProbe(e, port)
	if err != nil {
		return err
	}
	defer done()
	if e.GetPreset() != presetCommand { // which may have something else listen for it, such as a container's proxy
		ask = askOnly(ask, func() ([]proc.Listener, error) { return w.Listening(port) })
	}
	err = untilReady(ctx, ask, w.Done(), time.After)
	if err == nil {
		return stillThere(w)
	}
	if errors.Is(err, errEnded) {
		return w.Err()
	}
	return err
}

// askOnly asks where the version's own sockets listen, and believes an answer when they are the same ones after it: nobody else can
// have given it.
func askOnly(ask probe, listening func() ([]proc.Listener, error)) probe {
	return func(ctx context.Context) error {
		before, err := listening()
		if err == nil {
			err = ask(ctx)
		}
		if err != nil {
			return err
		}
		after, err := listening()
		if err == nil && !slices.Equal(before, after) {
			err = worker.ErrNobody
		}
		return err
	}
}

// errEnded says that the process has ended that was asked.
var errEnded = errors.New("the process has ended")

// untilReady asks, with pauses, until the answer is that the version can serve.
func untilReady(ctx context.Context, ask probe, ended <-chan struct{}, after func(time.Duration) <-chan time.Time) error {
	var last error
	pause, quiet := pollEvery, fastestPoll
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ask(once)
		cancel()
		if err == nil {
			return nil
		}
		if last != nil && ctx.Err() != nil {
			err = last // the end of ctx is no answer
		}
		wait := pause
		if last = err; isAnswer(err) {
			pause = min(2*pause, slowestPoll)
		} else {
			wait, pause = quiet, pollEvery
			quiet = min(quiet+quiet/30, pollEvery)
		}
		select {
		case <-ended:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("it was asked last with this answer: %w", err)
		case <-after(wait):
		}
	}
}

// isAnswer reports whether an error is what a version answers, not that nobody did.
func isAnswer(err error) bool {
	if errors.Is(err, errUnwell) || errors.Is(err, worker.ErrStranger) {
		return true
	}
	st, ok := status.FromError(err)
	return ok && st.Code() != codes.Unavailable && st.Code() != codes.DeadlineExceeded && st.Code() != codes.Canceled
}

// stillThere guards against an answer from somebody else who took the port.
func stillThere(w *worker.Worker) error {
	select {
	case <-w.Done():
		return errors.Join(w.Err(), worker.ErrStranger)
	default:
		return nil
	}
}
