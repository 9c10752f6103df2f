package dagster

import (
	"context"
	"encoding/json"
)

// Runs returns the ids of the runs that a code server executes. It knows those that it has launched itself, and no others.
func Runs(ctx context.Context, on Caller) ([]string, error) {
	var reply struct {
		Runs []string `json:"current_runs"`
	}
	err := ask(ctx, on, "GetCurrentRuns", nil, &reply)
	return reply.Runs, err
}

// runOf returns the run that a CancelExecution or CanCancelExecution is about.
func runOf(message []byte) (string, bool) {
	said, err := field(message, 1)
	if err != nil {
		return "", false
	}
	var request struct {
		Run string `json:"run_id"`
	}
	err = json.Unmarshal([]byte(said), &request)
	return request.Run, err == nil && request.Run != ""
}

// errorInfo is an exception as Dagster passes it on (SerializableErrorInfo).
type errorInfo struct {
	Message string     `json:"message"`
	Stack   []string   `json:"stack"`
	Cause   *errorInfo `json:"cause"`
}

// Error says it as Python would, without the frames of what only wraps the user's own error.
func (e *errorInfo) Error() string {
	for e.Cause != nil {
		e = e.Cause
	}
	s := ""
	for _, frame := range e.Stack {
		s += frame
	}
	return s + e.Message
}
