package dagster

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// cancel is the request to cancel a run, as dagster 1.13.27 writes it.
func cancel(run string) []byte {
	return text(`{"__class__": "CancelExecutionRequest", "run_id": "` + run + `"}`)
}

var cancelled = map[string]string{"CancelExecution": `{"success": true}`, "CanCancelExecution": `{"can_cancel": true}`}

// TestCallsAboutRuns switches twice: calls about a run go to the version that executes it, all others to the current one.
func TestCallsAboutRuns(t *testing.T) {
	for name, opts := range map[string][]grpc.CallOption{"plain": nil, "gzip": {grpc.UseCompressor(gzip.Name)}} {
		t.Run(name, func(t *testing.T) {
			l := newLocation(t, true, opts...)
			servers := map[string]*codeServer{}
			closers := map[string]func() error{}
			for _, v := range []string{"a", "b", "c"} {
				servers[v] = &codeServer{runs: []string{"run of " + v}, answers: cancelled}
				b := servers[v].start(t)
				closers[v] = b.Close
				l.Point(b)
			}
			reaches := func(method, run, version string) {
				t.Helper()
				_, err := l.call(method, cancel(run))
				require.NoError(t, err)
				for v, s := range servers {
					if v == version {
						require.Equal(t, []string{method + " " + string(cancel(run))}, s.calls())
					} else {
						require.Empty(t, s.calls(), v)
					}
				}
			}
			for _, method := range []string{"CancelExecution", "CanCancelExecution"} {
				for _, v := range []string{"a", "b", "c"} {
					reaches(method, "run of "+v, v)
				}
				reaches(method, "run of nobody", "c")
			}
			said, err := l.call("GetCurrentRuns", nil)
			require.NoError(t, err)
			require.JSONEq(t, `{"__class__": "GetCurrentRunsResult", "current_runs": ["run of c", "run of b", "run of a"],
				"serializable_error_info": null}`, said)
			// A version that has ended has no runs.
			require.NoError(t, closers["b"]())
			reaches("CancelExecution", "run of b", "c")
			require.Len(t, l.Others(), 1)
		})
	}
}

// TestNotUnderstood has what is no request about a run reach the current version as it is.
func TestNotUnderstood(t *testing.T) {
	l := newLocation(t, true)
	old := &codeServer{runs: []string{"", "x"}, answers: cancelled}
	now := &codeServer{answers: cancelled}
	l.Point(old.start(t))
	l.Point(now.start(t))
	for _, message := range []string{
		"", "\xff\xff\xff", "\x0a\x05x", string(text("no JSON")), string(text(`{"run_id": 5}`)), string(text(`{}`)),
		string(cancel("x" + strings.Repeat(" ", maxCall))), // more than is looked into
	} {
		_, err := l.call("CancelExecution", []byte(message))
		require.NoError(t, err)
		require.Equal(t, []string{"CancelExecution " + message}, now.calls())
	}
	require.Empty(t, old.calls())
}

// TestSilentVersion has a version that hangs keep nobody from what others know.
func TestSilentVersion(t *testing.T) {
	l := newLocation(t, true)
	for _, s := range []*codeServer{{runs: []string{"old"}, answers: cancelled}, {silent: true}, {runs: []string{"new"}, answers: cancelled}} {
		l.Point(s.start(t))
	}
	said, err := l.call("GetCurrentRuns", nil)
	require.NoError(t, err)
	require.Contains(t, said, `"current_runs":["new","old"]`)
	said, err = l.call("CancelExecution", cancel("old"))
	require.NoError(t, err)
	require.Equal(t, cancelled["CancelExecution"], said)
}

// TestCurrentHasNoAnswer has a list of runs that cannot be made be the current version's own affair.
func TestCurrentHasNoAnswer(t *testing.T) {
	l := newLocation(t, true)
	l.Point((&codeServer{runs: []string{"old"}}).start(t))
	l.Point((&codeServer{answers: map[string]string{"GetCurrentRuns": `{"serializable_error_info": "x"}`}}).start(t))
	said, err := l.call("GetCurrentRuns", nil)
	require.NoError(t, err)
	require.Equal(t, `{"serializable_error_info": "x"}`, said)
	l.Point(nil)
	_, err = l.call("GetCurrentRuns", nil)
	require.Equal(t, codes.Unavailable, status.Code(err))
}

func TestShutdownServer(t *testing.T) {
	for _, active := range []bool{true, false} {
		l := newLocation(t, active)
		s := &codeServer{answers: map[string]string{"ShutdownServer": "ended", "Ping": "pong"}}
		l.Point(s.start(t))
		said, err := l.call("ShutdownServer", nil)
		require.NoError(t, err)
		if active {
			require.JSONEq(t, `{"__class__": "ShutdownServerResult", "serializable_error_info": null, "success": true}`, said)
			require.Empty(t, s.calls())
		} else {
			require.Equal(t, "ended", said)
			require.Equal(t, []string{"ShutdownServer "}, s.calls())
		}
		said, err = l.call("Ping", nil)
		require.NoError(t, err)
		require.Equal(t, "pong", said)
	}
}

// FuzzRunOf feeds what clients may send to what reads it.
func FuzzRunOf(f *testing.F) {
	f.Add(cancel("a"))
	f.Add([]byte("\x0a\x05x"))
	f.Add([]byte("\x10\x01\x0a\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		if run, ok := runOf(message); ok != (run != "") {
			t.Errorf("%q, %t", run, ok)
		}
	})
}
