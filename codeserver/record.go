package codeserver

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pexpress/pexpress/codeserver/worker"
)

// record is what the next codeserver is told of a process. It is with the process's shim, not on disk: it is there exactly
// as long as the process is.
type record struct {
	Location string    `json:"location"`
	Version  string    `json:"version"` // its name
	Port     int       `json:"port"`
	Role     role      `json:"role"`
	Since    time.Time `json:"since"` // in this role
	Forked   bool      `json:"forked,omitempty"`
	// Isolation is what is in force for it.
	Isolation []string `json:"isolation,omitempty"`
	// User is its own, 0 if it has none.
	User int `json:"user,omitempty"`
	// Dirs are those without which it cannot go on.
	Dirs []string `json:"dirs"`
}

// role is what a process is there for.
type role string

const (
	starting role = "starting" // it has never had a request
	serving  role = "serving"  // it is the location's current one
	draining role = "draining" // it was; what it began it may finish, and it may be kept warm
)

// lasted is how long the process has had a role.
func (r *record) lasted(as role, now time.Time) time.Duration {
	if r.Role != as {
		return 0
	}
	return max(0, now.Sub(r.Since)) // a clock can be set back
}

func (s *Server) runDir() string { return filepath.Join(s.opts.State, "run") }

// adoptable has a process go on when this codeserver is gone, if that is wanted.
func (s *Server) adoptable(spec *worker.Spec, r record) error {
	if s.opts.AdoptWithin <= 0 {
		return nil
	}
	if err := os.MkdirAll(s.runDir(), 0o700); err != nil {
		return fmt.Errorf("a place for the sockets of versions: %w", err)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	spec.Socket = filepath.Join(s.runDir(), r.Version[:12]+"-"+rand.Text()[:10])
	spec.Within, spec.Record = s.opts.AdoptWithin, b
	return nil
}

// note tells a process's shim which role the process has now. Server.mu is not held.
func (s *Server) note(run *running, as role) {
	s.mu.Lock()
	if run.record.Role != as {
		run.record.Role, run.record.Since = as, s.opts.now()
	}
	r := run.record
	s.mu.Unlock()
	if s.opts.AdoptWithin <= 0 {
		return
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = run.worker.Note(b)
	}
	select {
	case <-run.worker.Done():
		return
	default:
	}
	if err != nil {
		s.opts.Log.Warn("a version's shim does not know what the version is there for", "location", r.Location, "error", err)
	}
}

// readRecord reads a record that a codeserver has written, perhaps one of another version.
func readRecord(b json.RawMessage) (record, error) {
	var r record
	if b == nil {
		return r, errors.New("it is not known what it is")
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("it is not known what it is: %w", err)
	}
	if r.Port < 1 || r.Port > 65535 || r.Role != starting && r.Role != serving && r.Role != draining {
		return r, errors.New("it is not known what it is for")
	}
	return r, nil
}
