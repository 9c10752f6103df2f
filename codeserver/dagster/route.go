package dagster

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pexpress/pexpress/codeserver/proxy"
)

const (
	// maxCall bounds the requests that are looked into. They name one run.
	maxCall = 64 << 10
	// askTimeout is how long a version that was replaced may take to say what it runs. One that hangs says nothing.
	askTimeout = 2 * time.Second
)

// Route has the calls of a code location that one server alone cannot answer reach the right one. A server knows the runs
// that it has launched, so after a switch calls about a run go to the version that executes it; the list of runs is that
// of all versions; and ShutdownServer, by which a client would end the server of all others, is answered and not passed on.
//
// What a version runs is asked of it at each such call, not remembered: they are rare, and what was remembered would be
// gone, or wrong, after a restart of the codeserver. Only while active is true is anything else than forwarded.
func Route(sw *proxy.Switch, active func() bool, log *slog.Logger) {
	sw.Intercept(func(forward http.Handler) http.Handler {
		return &router{sw: sw, active: active, forward: forward, log: log}
	})
}

type router struct {
	sw      *proxy.Switch
	active  func() bool
	forward http.Handler
	log     *slog.Logger
}

func (r *router) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	method, ok := strings.CutPrefix(in.URL.Path, service)
	if ok && proxy.IsGRPC(in) {
		switch method {
		case "ShutdownServer":
			if r.active() {
				r.shutdown(w, in)
				return
			}
		case "CancelExecution", "CanCancelExecution":
			if others := r.sw.Others(); len(others) > 0 && r.active() {
				in = r.toRun(in, others)
			}
		case "GetCurrentRuns":
			if others := r.sw.Others(); len(others) > 0 && r.active() && r.runs(w, in, others) {
				return
			}
		}
	}
	r.forward.ServeHTTP(w, in)
}

// shutdown answers as a server that is going to end, which is all that a client can see of it: another one comes up at
// the same address in any case.
func (r *router) shutdown(w http.ResponseWriter, in *http.Request) {
	_, in, _ = proxy.ReadCall(in, maxCall)
	r.log.Info("a client's ShutdownServer is not passed on: the location goes on", "client", in.RemoteAddr)
	proxy.AnswerCall(w, text(`{"__class__": "ShutdownServerResult", "serializable_error_info": null, "success": true}`))
}

// toRun returns the request as one to the version that executes the run which it is about, if one of the others does.
func (r *router) toRun(in *http.Request, others []*proxy.Backend) *http.Request {
	message, in, ok := proxy.ReadCall(in, maxCall)
	if !ok {
		return in
	}
	run, ok := runOf(message)
	if !ok {
		return in
	}
	for i, runs := range r.askAll(in.Context(), others) {
		if slices.Contains(runs, run) {
			return proxy.Towards(others[i], in)
		}
	}
	return in
}

// askAll returns the runs of each of some versions, none for one that does not say.
func (r *router) askAll(ctx context.Context, versions []*proxy.Backend) [][]string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	all := make([][]string, len(versions))
	var wg sync.WaitGroup
	for i, b := range versions {
		wg.Go(func() {
			var err error
			if all[i], err = Runs(ctx, b); err != nil {
				r.log.Warn("a version that was replaced does not say what it runs", "error", err)
			}
		})
	}
	wg.Wait()
	return all
}

// runs answers with the runs of all versions. It reports whether it has: where the current version gives no answer that
// can be added to, it is to answer the client itself.
func (r *router) runs(w http.ResponseWriter, in *http.Request, others []*proxy.Backend) bool {
	current := r.sw.Current()
	if current == nil {
		return false
	}
	var reply map[string]json.RawMessage
	var runs []string
	if ask(in.Context(), current, "GetCurrentRuns", nil, &reply) != nil || json.Unmarshal(reply["current_runs"], &runs) != nil {
		return false
	}
	for _, more := range r.askAll(in.Context(), others) {
		runs = append(runs, more...)
	}
	list, err := json.Marshal(append([]string{}, runs...))
	if err != nil {
		return false
	}
	reply["current_runs"] = list
	said, err := json.Marshal(reply)
	if err != nil {
		return false
	}
	proxy.AnswerCall(w, text(string(said)))
	return true
}
