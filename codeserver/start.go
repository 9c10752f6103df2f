package codeserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/loader"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/proxy"
	"github.com/pexpress/pexpress/codeserver/venv"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// prepared is a version on this host: all that its process needs.
type prepared struct {
	python string
	env    string // directory of the virtual environment
	source string // directory of the source tree
	inject map[string]string
}

// prepare loads the version's trees and makes its environment.
func (s *Server) prepare(ctx context.Context, l *location, v *version, log *logbook, r report) (*prepared, error) {
	python, err := s.pythons.find(ctx, v.spec.GetPython())
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	deps, st, err := s.loader.Load(ctx, v.deps)
	if err != nil {
		return nil, err
	}
	r.stage("load deps", begin, st)
	begin = time.Now()
	source, st, err := s.loader.Load(ctx, v.source)
	if err != nil {
		return nil, err
	}
	// What the trees say of themselves is checked before anything is written for them.
	inject, err := s.readInfos(ctx, deps, source)
	if err != nil {
		return nil, err
	}
	dir, err := s.loader.Dir(ctx, source, loader.Selection{Name: "source", Want: isSource}, s.currentSource(l))
	if err != nil {
		return nil, err
	}
	r.stage("load source", begin, st)
	begin = time.Now()
	env, err := s.environment(ctx, v.deps, deps, python)
	if err != nil {
		return nil, err
	}
	for _, w := range env.Warnings {
		log.write([]byte("codeserver: " + w))
	}
	r.stage("environment", begin, loader.Stats{})
	return &prepared{env.Python(), env.Dir, dir, inject}, nil
}

// environment returns the environment of a deps tree.
func (s *Server) environment(ctx context.Context, root digest.Digest, deps *merkle.Tree, py *venv.Interpreter) (env *venv.Env, err error) {
	err = loader.Heal(func() error {
		env, err = s.venvs.Env(ctx, root, wheelsOf(deps), py, s.loader.CAS())
		return err
	})
	return env, err
}

// currentSource is the source tree of the version that a location serves, whose bytecode the next one can use.
func (s *Server) currentSource(l *location) digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.current == nil {
		return digest.Digest{}
	}
	return l.current.source
}

// start brings a version up: its process runs and is ready. On an error nothing of it is left.
func (s *Server) start(ctx context.Context, l *location, v *version, timeout time.Duration, r report) (*running, error) {
	log, err := openLogbook(s.logPath(l, v), v.name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	v.log = log
	s.mu.Unlock()
	p, err := s.prepare(ctx, l, v, log, r)
	if err != nil {
		log.close()
		return nil, err
	}
	begin := time.Now()
	run, port, err := s.startProcess(v, p, log)
	if err != nil {
		log.close()
		return nil, err
	}
	s.mu.Lock()
	v.running, v.state = run, codeserverpb.State_STARTING
	s.mu.Unlock()
	s.changed()
	r.stage("start", begin, loader.Stats{})
	begin = time.Now()
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := waitReady(waiting, v.spec.GetEntry(), port, run.worker); err != nil {
		if late := waiting.Err() != nil && ctx.Err() == nil; late {
			err = fmt.Errorf("not ready after %s: %w", timeout, err)
		}
		s.fail(v, run)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w%s", errNotReady, err, log.lastWords())
	}
	r.stage("ready", begin, loader.Stats{})
	return run, nil
}

// fail ends a process that did not become ready, or is not wanted any more.
func (s *Server) fail(v *version, run *running) {
	s.mu.Lock()
	run.stopped = true
	log := v.log
	s.mu.Unlock()
	run.worker.Stop(context.Background())
	_ = run.backend.Close()
	s.mu.Lock()
	v.running, v.state = nil, codeserverpb.State_FAILED
	s.mu.Unlock()
	log.close()
}

func (s *Server) startProcess(v *version, p *prepared, log *logbook) (*running, int, error) {
	port, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	entry := v.spec.GetEntry()
	program, args, err := command(entry, p, port)
	if err != nil {
		return nil, 0, err
	}
	dir := filepath.Join(p.source, filepath.FromSlash(entry.GetWorkingDirectory()))
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, 0, fmt.Errorf("%w: the working directory %q is not in the sources", errRequest, entry.GetWorkingDirectory())
	}
	w, err := worker.Start(worker.Spec{
		Program: program, Args: args, Dir: dir, Env: environment(v.spec, p, port),
		Log: log.write, Grace: s.opts.StopGrace,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w%s", errNotReady, err, log.lastWords())
	}
	return &running{worker: w, backend: proxy.NewBackend(fmt.Sprintf("127.0.0.1:%d", port))}, port, nil
}

// freePort returns a port that nobody listens on now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
