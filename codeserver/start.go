package codeserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pexpress/pexpress/cache"
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
func (s *Server) prepare(ctx context.Context, v *version, r report) (*prepared, error) {
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
	dir, err := s.loader.Dir(ctx, source, "source", isSource)
	if err != nil {
		return nil, err
	}
	r.stage("load source", begin, st)
	begin = time.Now()
	inject, err := s.readInfos(ctx, deps, source)
	if err != nil {
		return nil, err
	}
	python, err := venv.Find(ctx, v.spec.GetPython())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	env, err := s.venvs.Env(ctx, v.deps, wheelsOf(deps), python, s.loader.CAS())
	if err != nil {
		return nil, err
	}
	for _, w := range env.Warnings {
		v.log.write([]byte("codeserver: " + w))
	}
	r.stage("environment", begin, loader.Stats{})
	return &prepared{env.Python(), env.Dir, dir, inject}, nil
}

// start brings a version up: its process runs and is ready. On an error nothing of it is left.
func (s *Server) start(ctx context.Context, l *location, v *version, timeout time.Duration, r report) (*running, error) {
	log, err := openLogbook(s.logPath(l, v), v.name)
	if err != nil {
		return nil, err
	}
	v.log = log
	p, err := s.prepare(ctx, v, r)
	if err != nil {
		log.close()
		return nil, err
	}
	begin := time.Now()
	run, port, err := s.startProcess(v, p)
	if err != nil {
		log.close()
		return nil, err
	}
	s.mu.Lock()
	v.running, v.state = run, codeserverpb.State_STARTING
	s.mu.Unlock()
	r.stage("start", begin, loader.Stats{})
	begin = time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := waitReady(ctx, v.spec.GetEntry(), port, run.worker); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("not ready after %s: %w", timeout, err)
		}
		s.fail(v, run)
		return nil, fmt.Errorf("%w: %w%s", errNotReady, err, log.lastWords())
	}
	r.stage("ready", begin, loader.Stats{})
	return run, nil
}

// fail ends a process that did not become ready.
func (s *Server) fail(v *version, run *running) {
	s.mu.Lock()
	run.stopped = true
	s.mu.Unlock()
	run.worker.Stop(context.Background())
	_ = run.backend.Close()
	s.mu.Lock()
	v.running, v.state = nil, codeserverpb.State_FAILED
	s.mu.Unlock()
	v.log.close()
}

func (s *Server) startProcess(v *version, p *prepared) (*running, int, error) {
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
		return nil, 0, fmt.Errorf("%w: the working directory %q is not in the sources", errRefused, entry.GetWorkingDirectory())
	}
	w, err := worker.Start(worker.Spec{
		Program: program, Args: args, Dir: dir, Env: environment(v.spec, p, port),
		Log: v.log.write, Grace: s.opts.StopGrace,
	})
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w%s", errNotReady, err, v.log.lastWords())
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

// passed are the codeserver's own variables that versions see; nothing else of its environment reaches them.
var passed = []string{"HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}

// environment returns the variables of a version's process. Its own come after the base, and can replace them.
func environment(spec *codeserverpb.VersionSpec, p *prepared, port int) []string {
	vars := map[string]string{"LANG": "C.UTF-8"}
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			vars[name] = v
		}
	}
	vars["PATH"] = filepath.Join(p.env, "bin") + ":/usr/local/bin:/usr/bin:/bin"
	vars["VIRTUAL_ENV"] = p.env
	vars["PYTHONUNBUFFERED"] = "1"
	vars["PYTHONNOUSERSITE"] = "1"
	for name, value := range p.inject {
		vars[name] = value
	}
	for name, value := range spec.GetEnv() {
		vars[name] = value
	}
	vars["PORT"] = fmt.Sprint(port)
	vars["PYTHONPATH"] = pythonPath(spec.GetEntry(), p.source, spec.GetEnv()["PYTHONPATH"])
	var env []string
	for name, value := range vars {
		env = append(env, name+"="+value)
	}
	return env
}

// pythonPath returns the source roots, the tree's root, and what the version's own environment adds.
func pythonPath(e *codeserverpb.Entry, source, more string) string {
	var dirs []string
	for _, root := range e.GetSourceRoots() {
		dirs = append(dirs, filepath.Join(source, filepath.FromSlash(root)))
	}
	dirs = append(dirs, source)
	if more != "" {
		dirs = append(dirs, more)
	}
	return strings.Join(dirs, ":")
}

// loadError says what kind of failure a load was, for the one who deploys.
func loadError(err error) error {
	switch {
	case errors.Is(err, loader.ErrCache):
		return fmt.Errorf("%w: %w", errUnavailable, err)
	case errors.Is(err, cache.ErrNotFound):
		return fmt.Errorf("%w: %w; do the codeserver and pexpress use the same cache?", errNotFound, err)
	case errors.Is(err, venv.ErrWheel):
		return fmt.Errorf("%w: %w", errRequest, err)
	}
	return err
}
