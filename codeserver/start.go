package codeserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/loader"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/venv"
	"github.com/pexpress/pexpress/codeserver/worker"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

// prepared is a version on this host: all that its process needs.
type prepared struct {
	python string
	env    string // directory of the virtual environment
	source string // directory of the source tree
	inject map[string]string
	// outputs are the directories of further trees, by name.
	outputs map[string]string
	// location is whose secrets they are: values by name, for the environment of the process and for nothing else.
	location string
	secrets  map[string]string
	// user and home are 0 and empty if the version has none of its own.
	user        int
	home        string
	interpreter *venv.Interpreter
	wheels      []venv.Wheel
}

// prepare loads the version's trees and makes its environment.
func (s *Server) prepare(ctx context.Context, l *location, v *version, log *logbook, r report) (*prepared, error) {
	python, err := s.pythons.find(ctx, v.spec.GetPython())
	if err != nil {
		return nil, err
	}
	user, err := s.userOf(l)
	if err != nil {
		return nil, err
	}
	values, err := s.secretValues(ctx, l.name, v.spec)
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
	dir, err := s.loader.Dir(ctx, source, sourceSelection(user), s.currentSource(l))
	if err != nil {
		return nil, err
	}
	r.stage("load source", begin, st)
	outputs, err := s.loadOutputs(ctx, v, r)
	if err != nil {
		return nil, err
	}
	begin = time.Now()
	wheels := wheelsOf(deps)
	env, err := s.environment(ctx, v.deps, wheels, python)
	if err != nil {
		return nil, err
	}
	for _, w := range env.Warnings {
		log.write([]byte(worker.OwnLine + w))
	}
	r.stage("environment", begin, loader.Stats{Blobs: env.Fetched.Files, Bytes: env.Fetched.Bytes})
	p := &prepared{
		python: env.Python(), env: env.Dir, source: dir, inject: inject, outputs: outputs, location: l.name, secrets: values, user: user,
		interpreter: python, wheels: wheels,
	}
	if user != 0 {
		if p.home, err = s.makeHome(l, user); err != nil {
			return nil, fmt.Errorf("make the home of %s: %w", l.name, err)
		}
	}
	return p, nil
}

// sourceSelection is what of a source tree a version of a user runs in. Users do not share a directory: Python keeps
// bytecode there, and whoever can write that can have whoever reads it do anything.
func sourceSelection(user int) loader.Selection {
	if user == 0 {
		return loader.Selection{Name: "source", Want: isSource}
	}
	return loader.Selection{Name: fmt.Sprintf("source-%d", user), Want: isSource, User: user}
}

// environment returns the environment of a deps tree, which has these wheels.
func (s *Server) environment(ctx context.Context, root digest.Digest, wheels []venv.Wheel, py *venv.Interpreter) (env *venv.Env, err error) {
	err = loader.Heal(func() error {
		env, err = s.venvs.Env(ctx, root, wheels, py, s.loader.CAS())
		return err
	})
	if err == nil {
		s.fillBytecode(wheels, py)
	}
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
	s.limits.Hurry(0)
	log, err := s.openLog(l, v)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	v.log, v.stages = log, nil
	l.own(v)
	s.mu.Unlock()
	p, err := s.prepare(ctx, l, v, log, r)
	if err != nil {
		log.close()
		return nil, err
	}
	started := time.Now()
	run, launch, err := s.bringUp(ctx, l, v, p, log, timeout, r, false)
	if err != nil && launch != nil && launch.Warm() {
		// Whether that was the version's fault shows when it is not forked.
		if ctx.Err() == nil {
			why, _, _ := strings.Cut(err.Error(), "\n") // the rest is in this log
			log.write([]byte(worker.OwnLine + why + "; forked it does not come up, it is started once more by itself"))
			run, _, err = s.bringUp(ctx, l, v, p, log, timeout, r, true)
		}
		launch.Settle()
	}
	if errors.Is(err, errNotReady) && ctx.Err() == nil {
		remade, damaged := s.checkDeps(ctx, v, p, started, r)
		if len(remade) > 0 && ctx.Err() == nil {
			why, _, _ := strings.Cut(err.Error(), "\n")
			log.write([]byte(worker.OwnLine + why + "; of its dependencies were not as they were made, and are made again: " +
				strings.Join(remade, ", ") + "; it is started once more"))
			run, _, err = s.bringUp(ctx, l, v, p, log, timeout, r, true)
		}
		if err != nil && errors.Is(damaged, venv.ErrDamaged) {
			err = fmt.Errorf("%w\n%w", damaged, err)
		}
	}
	if err != nil {
		s.fail(v, nil)
		return nil, err
	}
	return run, nil
}

// bringUp starts a version's process, forked if it can be and cold does not forbid it, and waits until it is ready. On
// an error nothing of the process is left.
func (s *Server) bringUp(ctx context.Context, l *location, v *version, p *prepared, log *logbook, timeout time.Duration, r report, cold bool) (*running, *zygote.Launch, error) {
	begin := time.Now()
	log.begin()
	run, launch, port, err := s.startProcess(ctx, v, p, log, cold)
	warm := launch != nil && launch.Warm()
	if err != nil {
		if launch != nil {
			launch.Failed(ctx.Err() == nil && !errors.Is(err, errLimit))
		}
		return nil, launch, err
	}
	s.mu.Lock()
	v.running, v.state, v.forked = run, codeserverpb.State_STARTING, warm
	s.mu.Unlock()
	s.changed()
	stage := "start"
	if warm {
		stage = "fork"
	}
	note := ""
	if warm && launch.Waited() > time.Since(begin)/2 && launch.Waited() > noticed {
		note = "importing what the next ones start with, too"
	}
	r.noted(stage, begin, note)
	begin = time.Now()
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = waitReady(waiting, v.spec.GetEntry(), port, run.worker)
	if err == nil {
		r.stage("ready", begin, loader.Stats{})
		err = warmDefinitions(waiting, l, v, run, r)
	}
	if err != nil {
		if late := waiting.Err() != nil && ctx.Err() == nil; late {
			err = fmt.Errorf("not ready after %s: %w", timeout, err)
		}
		err = run.group.Explain(err)
		limited := run.group.Met()
		s.end(run)
		if launch != nil {
			launch.Failed(ctx.Err() == nil && !limited)
		}
		if ctx.Err() != nil {
			return nil, launch, ctx.Err()
		}
		return nil, launch, fmt.Errorf("%w: %w%s", errNotReady, err, log.lastWords())
	}
	if launch != nil {
		launch.Ready(run.worker.PID())
	}
	return run, launch, nil
}

// noticed is how long a step may take before it is said what it waits for.
const noticed = 100 * time.Millisecond

// errLimit is why a version does not start that is not allowed what its start takes: no fault of the fork.
var errLimit = errors.New("one of its limits was met")

// fail ends a version that did not come up, or is not wanted any more.
func (s *Server) fail(v *version, run *running) {
	if run != nil {
		s.end(run)
	}
	s.mu.Lock()
	v.running, v.state = nil, codeserverpb.State_FAILED
	log := v.log
	s.mu.Unlock()
	log.close()
}

// end ends a process.
func (s *Server) end(run *running) {
	s.mu.Lock()
	run.stopped = true
	s.mu.Unlock()
	run.worker.Stop(context.Background())
	_ = run.backend.Close()
}

func (s *Server) startProcess(ctx context.Context, v *version, p *prepared, log *logbook, cold bool) (*running, *zygote.Launch, int, error) {
	spec, port, err := s.spec(v, p, log.write)
	if err != nil {
		return nil, nil, 0, err
	}
	launch := s.launch(ctx, v, p, spec, cold)
	if launch != nil {
		if spec.Sandbox, err = s.sandbox(v, p, launch.Learn()); err != nil {
			return nil, launch, 0, errors.Join(err, spec.Group.End())
		}
	}
	rec := record{
		Location: p.location, Version: v.name, Port: port, Role: starting, Since: s.opts.now(), Forked: launch != nil && launch.Warm(),
		Isolation: append(spec.Group.Isolation(), s.shutIn(v, p)...), User: p.user, Dirs: []string{spec.Dir, p.env},
	}
	if err := s.adoptable(spec, rec); err != nil {
		return nil, launch, 0, errors.Join(err, spec.Group.End())
	}
	w, err := worker.Start(*spec)
	if err != nil {
		if spec.Group.Met() {
			err = fmt.Errorf("%w: %w", errLimit, err)
		}
		return nil, launch, 0, fmt.Errorf("%w: %w%s", errNotReady, err, log.lastWords())
	}
	return s.newRunning(w, v, spec.Group, rec), launch, port, nil
}

// spec returns what a version's process is to be, and the port that it is to listen on.
func (s *Server) spec(v *version, p *prepared, log func([]byte)) (*worker.Spec, int, error) {
	port, err := s.ports.give()
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
	spec := &worker.Spec{
		Program: program, Args: args, Dir: dir, Env: s.environ(v.spec, p, port), Log: log, Grace: s.opts.StopGrace,
	}
	if spec.Sandbox, err = s.sandbox(v, p, ""); err != nil {
		return nil, 0, err
	}
	spec.Group, err = s.group(v, p)
	return spec, port, err
}
