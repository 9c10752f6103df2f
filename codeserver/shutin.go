package codeserver

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/limits"
	"github.com/pexpress/pexpress/codeserver/sandbox"
	"github.com/pexpress/pexpress/codeserver/venv"
)

// defaultTmp is how much a version without a memory limit may write to /tmp.
const defaultTmp = 1 << 30

func tmpSize(v *version) int64 {
	l := v.spec.GetLimits()
	return cmp.Or(l.GetTmpBytes(), l.GetMemoryBytes()/4, defaultTmp)
}

// home is the home directory of every version: what each finds there is its location's own. All have the same path so that
// versions of several locations can be forked from one process.
func (s *Server) home() string { return filepath.Join(s.opts.State, "home") }

func (s *Server) homes() string { return filepath.Join(s.opts.State, "homes") }

// homeOf is where what a location finds in its home is kept.
func (s *Server) homeOf(l *location, user int) string {
	return filepath.Join(s.homes(), fmt.Sprintf("%s.%d", l.name, user))
}

// makeHome makes a location's home.
func (s *Server) makeHome(l *location, user int) (string, error) {
	dir := s.homeOf(l, user)
	if err := os.MkdirAll(s.homes(), 0o711); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return dir, nil
		}
		return "", err
	}
	return dir, os.Chown(dir, user, user)
}

// keepHomes deletes the homes of locations that are gone.
func (s *Server) keepHomes(kept map[string]bool) error {
	homes, err := os.ReadDir(s.homes())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range homes {
		if !kept[e.Name()] {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.homes(), e.Name())))
		}
	}
	return err
}

// shared is what a version sees, and its zygote as well.
func (s *Server) shared(python *venv.Interpreter) sandbox.View {
	return sandbox.View{
		Hidden: append([]string{s.opts.State}, s.opts.Hidden...),
		Shown: []sandbox.Shown{
			{Path: python.Prefix}, {Path: filepath.Dir(python.Path)}, // mostly one is in the other
			{Path: filepath.Join(s.opts.State, "python")}, {Path: s.zygotes.Script()},
		},
	}
}

// sandbox returns what a version is shut into, nil if it has no user of its own. learn is a file that it may write to.
func (s *Server) sandbox(v *version, p *prepared, learn string) (*sandbox.Spec, error) {
	if p.user == 0 {
		return nil, nil
	}
	view := s.shared(p.interpreter)
	view.Scratch = tmpSize(v)
	view.Shown = append(view.Shown, sandbox.Shown{Path: p.source, Writable: true}, // it is root's, but for the bytecode
		sandbox.Shown{Path: s.home(), Source: p.home, Writable: true})
	for _, dir := range p.outputs {
		view.Shown = append(view.Shown, sandbox.Shown{Path: dir})
	}
	if learn != "" {
		if err := os.Chown(learn, p.user, p.user); err != nil {
			return nil, err
		}
		view.Shown = append(view.Shown, sandbox.Shown{Path: learn, Writable: true})
	}
	return sandbox.Plan(p.user, view), nil
}

// zygotePids is how many processes and threads a zygote may have: those that its modules start, and forks that are not
// admitted yet.
const zygotePids = 512

// zygoteSandbox returns what a zygote is shut into, one of versions that are: it runs the code of those who deploy, and is
// kept from taking more than a quarter of the machine's memory.
func (s *Server) zygoteSandbox(p *prepared) (*sandbox.Spec, *limits.Group, error) {
	if p.user == 0 {
		return nil, nil, nil
	}
	user, err := s.zygoteUser()
	if err != nil {
		return nil, nil, err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, nil, err
	}
	group, err := s.limits.Zygote(limits.Limits{Memory: int64(info.Totalram) * int64(info.Unit) / 4, Pids: zygotePids})
	return sandbox.Plan(user, s.shared(p.interpreter)), group, err
}

// shutIn says what is in force for a version.
func (s *Server) shutIn(v *version, p *prepared) []string {
	if p.user == 0 {
		return []string{"user, files, /tmp: shared by all versions (" + cmp.Or(s.opts.Users.Without, "no users are given") + ")"}
	}
	return []string{
		fmt.Sprintf("user: %d", p.user), "/tmp: its own, at most " + limits.Size(tmpSize(v)), "code: read only",
		"other locations' files, processes and memory: out of reach",
	}
}
