package codeserver

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/limits"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/sandbox"
	"github.com/pexpress/pexpress/codeserver/worker"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

// warmVariable turns forking off for a version whose environment sets it to 0.
const warmVariable = "PEXPRESS_WARM"

// tooOld are the Pythons that have no socket.recv_fds.
var tooOld = []string{"3.6", "3.7", "3.8"}

// launch prepares the start of a version that Python runs, so that it is forked from a process that has imported its
// dependencies, or teaches what they are. It returns nil for any other program.
func (s *Server) launch(ctx context.Context, v *version, p *prepared, spec *worker.Spec, cold bool) *zygote.Launch {
	args := pythonArgs(p, spec)
	if args == nil || v.spec.GetCold() || v.spec.GetEnv()[warmVariable] == "0" || slices.Contains(tooOld, v.spec.GetPython()) ||
		v.spec.GetEnv()["PYTHONSAFEPATH"] != "" {
		return nil
	}
	own := append([]string{"PORT", "PYTHONPATH"}, v.spec.GetSecrets()...)
	for name := range p.outputs {
		own = append(own, outputVariable(name))
	}
	return s.zygotes.Launch(ctx, zygote.Version{
		Key: warmKey(v.spec), Location: p.location, Python: p.python, Args: args, Env: spec.Env, Own: own,
		Sandbox: func() (*sandbox.Spec, *limits.Group, error) { return s.zygoteSandbox(p) },
		Sources: append(filepath.SplitList(pythonPath(v.spec.GetEntry(), p.source, v.spec.GetEnv()["PYTHONPATH"])), spec.Dir),
		Probe: func(ctx context.Context, fork func(worker.ForkRequest) error) error {
			return s.tryFork(ctx, v, p, fork)
		},
	}, spec, cold)
}

// tryTimeout is how long a version has to become ready when it is started only to see whether it does.
const tryTimeout = time.Minute

// tryFork starts a version's process beside the one that serves, forked by fork, or by itself if that is nil, and ends it when
// it is ready. What it writes goes nowhere.
func (s *Server) tryFork(ctx context.Context, v *version, p *prepared, fork func(worker.ForkRequest) error) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	spec, port, err := s.spec(v, p, func([]byte) {})
	if err != nil {
		return err
	}
	args := pythonArgs(p, spec)
	if spec.Fork = fork; fork == nil {
		spec.Program, args = p.python, s.zygotes.Cold(args)
	}
	spec.Args = args
	w, err := worker.Start(*spec)
	if err != nil {
		return err
	}
	defer w.Stop(context.Background())
	return waitReady(ctx, v.spec.GetEntry(), port, w)
}

func (s *Server) openPool() (*zygote.Pool, error) {
	var others zygote.Exchange
	if s.opts.OpenResults != nil {
		others = &exchange{s.opts.OpenResults}
	}
	return zygote.OpenPool(filepath.Join(s.opts.State, "warm"), others, s.opts.Log)
}

// pythonArgs returns what Python is to run, nil if it is not Python that runs, or with options of its own.
func pythonArgs(p *prepared, spec *worker.Spec) []string {
	switch {
	case spec.Program == p.python && len(spec.Args) > 1 && spec.Args[0] == "-m":
		return spec.Args
	case filepath.Dir(spec.Program) == filepath.Join(p.env, "bin") && interpreterOf(spec.Program) == p.python:
		return append([]string{spec.Program}, spec.Args...)
	}
	return nil
}

// interpreterOf returns what a script's first line says that it is run by, "" if it says more than that.
func interpreterOf(script string) string {
	f, err := os.OpenFile(script, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReaderSize(f, 4096).ReadSlice('\n')
	interpreter, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "#!")
	if !ok || strings.ContainsAny(interpreter, " \t") {
		return ""
	}
	return interpreter
}

// withPreloads adds to a location's message what the processes are not to import that its versions are forked from.
func (s *Server) withPreloads(m *codeserverpb.Location) {
	for _, v := range m.GetVersions() {
		if v.GetPid() != 0 {
			v.LeftOut, v.Unforkable = s.zygotes.LeftOut(warmKey(v.GetSpec()))
		}
	}
}

// warmKey names what a version's start-up imports of its dependencies: they, the Python, and what is started.
func warmKey(spec *codeserverpb.VersionSpec) string {
	e := spec.GetEntry()
	what := e.GetPreset()
	if args := e.GetArgs(); len(args) > 0 && (what == presetModule || what == presetCommand) {
		what += " " + args[0]
	}
	deps, _ := digest.FromProto(spec.GetDepsRoot()) // newVersion has read it
	return deps.String() + " " + spec.GetPython() + " " + what
}
