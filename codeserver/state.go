package codeserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/pexpress/pexpress/cache/durable"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// stateVersion is the format of state.json.
const stateVersion = 1

// savedState is state.json.
type savedState struct {
	Version   int             `json:"version"`
	Locations []savedLocation `json:"locations"`
	// The user that was given to somebody last.
	LastUser int `json:"last_user,omitempty"`
}

type savedLocation struct {
	Name     string         `json:"name"`
	Address  string         `json:"address"`
	Current  string         `json:"current,omitempty"`
	Previous string         `json:"previous,omitempty"`
	Versions []savedVersion `json:"versions"`
	User     int            `json:"user,omitempty"`
}

type savedVersion struct {
	Spec     json.RawMessage `json:"spec"`
	Deployed time.Time       `json:"deployed_at"`
	// Why it is not one to go back to.
	Failed string `json:"failed,omitempty"`
	// Why it had failed, until it has served for long all the same.
	Blemish string `json:"blemish,omitempty"`
}

func (s *Server) statePath() string { return filepath.Join(s.opts.State, "state.json") }

// save writes the state: complete and on stable storage, or not at all.
func (s *Server) save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	st, err := s.snapshot()
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(s.statePath(), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep the state: %w", err)
	}
	return nil
}

func (s *Server) snapshot() (*savedState, error) {
	st := &savedState{Version: stateVersion}
	s.mu.Lock()
	st.LastUser = s.lastUser
	s.mu.Unlock()
	for _, l := range s.all() {
		s.mu.Lock()
		saved := savedLocation{Name: l.name, Address: l.address, User: l.user}
		if l.current != nil {
			saved.Current = l.current.name
		}
		if l.previous != nil {
			saved.Previous = l.previous.name
		}
		versions := l.versions
		s.mu.Unlock()
		names := map[string]bool{}
		for _, v := range versions {
			// A version that is deployed again while it drains is there twice.
			if names[v.name] {
				continue
			}
			names[v.name] = true
			s.mu.Lock()
			deployed, failed, blemish := v.deployed, v.failed, v.blemish
			s.mu.Unlock()
			spec, err := protojson.Marshal(v.spec)
			if err != nil {
				return nil, err
			}
			saved.Versions = append(saved.Versions, savedVersion{spec, deployed, failed, blemish})
		}
		if saved.Current != "" {
			st.Locations = append(st.Locations, saved)
		}
	}
	return st, nil
}

// restore reads the state that the last server left.
func (s *Server) restore() error {
	b, err := os.ReadFile(s.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return s.removeUnfinished()
	}
	if err != nil {
		return err
	}
	var st savedState
	if err := json.Unmarshal(b, &st); err != nil {
		return fmt.Errorf("%s is damaged: %w; move it away to start with no locations", s.statePath(), err)
	}
	if st.Version != stateVersion {
		return fmt.Errorf("%s has the format %d, this codeserver reads %d", s.statePath(), st.Version, stateVersion)
	}
	s.lastUser = st.LastUser
	for _, saved := range st.Locations {
		l, err := s.restoreLocation(saved)
		if err != nil {
			return fmt.Errorf("%s is damaged: location %.80q: %w; repair it, or move it away to start with no locations",
				s.statePath(), saved.Name, err)
		}
		s.locations[l.name] = l
	}
	return s.removeUnfinished()
}

// removeUnfinished removes what a process has left that was killed while it wrote the state, or cut a log.
func (s *Server) removeUnfinished() error {
	// Relative to the directory: its own name may hold what a pattern would read as its own.
	state := os.DirFS(s.opts.State)
	left, err := fs.Glob(state, ".state.json.*")
	logs, lerr := fs.Glob(state, "logs/.cut*")
	err = errors.Join(err, lerr)
	for _, name := range append(left, logs...) {
		err = errors.Join(err, os.Remove(filepath.Join(s.opts.State, name)))
	}
	return err
}

func (s *Server) restoreLocation(saved savedLocation) (*location, error) {
	if !locationName.MatchString(saved.Name) || s.locations[saved.Name] != nil {
		return nil, errors.New("it has no name of its own")
	}
	for _, other := range s.locations {
		if saved.User != 0 && saved.User == other.user {
			return nil, fmt.Errorf("its user %d is that of %s", saved.User, other.name)
		}
	}
	if saved.User != 0 && !mayBeGiven(saved.User) {
		return nil, fmt.Errorf("its user is %d, which is nobody's to give", saved.User)
	}
	l := s.newLocation(saved.Name)
	l.address = saved.Address
	l.user = saved.User // also one that --users does not give any more: files are its
	for _, sv := range saved.Versions {
		spec := &codeserverpb.VersionSpec{}
		if err := protojson.Unmarshal(sv.Spec, spec); err != nil {
			return nil, err
		}
		if err := checkSpec(spec); err != nil {
			return nil, err
		}
		v, err := newVersion(spec)
		if err != nil {
			return nil, err
		}
		v.deployed, v.switched, v.blemish = sv.Deployed, sv.Deployed, sv.Blemish
		if sv.Failed != "" {
			v.state, v.failed, v.err = codeserverpb.State_FAILED, sv.Failed, sv.Failed
		}
		l.versions = append(l.versions, v)
		switch v.name {
		case saved.Current:
			l.current = v
		case saved.Previous:
			l.previous = v
		}
	}
	if l.current == nil || l.address == "" {
		return nil, fmt.Errorf("the version %q that it serves, or its address, is not there", saved.Current)
	}
	return l, nil
}
