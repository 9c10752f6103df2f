package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin"
	"github.com/pexpress/pexpress/plugin/action"
	"github.com/pexpress/pexpress/plugin/build"
	"github.com/pexpress/pexpress/plugin/project"
)

// buildOutputs builds the trees of [tool.pexpress.output.NAME], or finds them in the cache.
func (s *session) buildOutputs(ctx context.Context) ([]namedResult, error) {
	var all []namedResult
	for _, o := range s.project.Outputs {
		r, err := s.buildOutput(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", o.Name, err)
		}
		all = append(all, namedResult{o.Name, r})
	}
	return all, nil
}

func (s *session) buildOutput(ctx context.Context, o project.Output) (*build.Result, error) {
	p, err := s.planOutput(ctx, o)
	if err != nil {
		return nil, err
	}
	defer p.builder.close()
	e := &build.Executor{CAS: s.cas, ActionCache: s.results, Builders: p.builder}
	return e.Run(ctx, p.Plan, func(ctx context.Context) error { return build.PutFiles(ctx, s.cas, p.files) })
}

// outputPlan is a planned output with what is needed to make it; whoever has it closes its builder.
type outputPlan struct {
	*action.Plan
	builder *outside
	files   map[digest.Digest]string
}

func (s *session) planOutput(ctx context.Context, o project.Output) (_ *outputPlan, err error) {
	name := o.Plugin
	if strings.Contains(name, "/") {
		name = filepath.Join(s.project.Dir, filepath.FromSlash(name))
	}
	program, err := findPlugin(name)
	if err != nil {
		return nil, inputError{err}
	}
	p := &outside{program: program, report: s.app.ui.warn}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err := p.identify(); err != nil {
		return nil, inputError{fmt.Errorf("plugin %s: %w", o.Plugin, err)}
	}
	about, err := s.describe(ctx, p)
	if err != nil {
		return nil, err
	}
	kind, err := kindOf(o, about)
	if err != nil {
		return nil, inputError{err}
	}
	files, tree, err := s.outputInputs(ctx, o)
	if err != nil {
		return nil, err
	}
	plan, err := action.Output(action.OutputInput{
		Name: o.Name, Kind: kind, Inputs: tree, OutputVersion: about.OutputVersion, Program: p.digest,
	})
	if err != nil {
		return nil, inputError{err}
	}
	return &outputPlan{plan, p, files}, nil
}

func kindOf(o project.Output, about plugin.Description) (string, error) {
	switch {
	case o.Kind == "" && len(about.Kinds) == 1:
		return about.Kinds[0], nil
	case !slices.Contains(about.Kinds, o.Kind):
		return "", fmt.Errorf("the plugin %s makes %s: say which with kind = \"…\" in [tool.pexpress.output.%s]",
			o.Plugin, strings.Join(about.Kinds, ", "), o.Name)
	}
	return o.Kind, nil
}

// outputInputs returns the tree of an output's inputs, and where its files are.
func (s *session) outputInputs(ctx context.Context, o project.Output) (map[digest.Digest]string, *merkle.Tree, error) {
	found, warnings, err := s.project.OutputFiles(ctx, o)
	if err != nil {
		return nil, nil, inputError{err}
	}
	for _, w := range warnings {
		s.app.ui.warn(w)
	}
	paths := make([]string, len(found))
	for i, f := range found {
		paths[i] = f.Abs
	}
	digests, err := s.hasher.Files(ctx, paths)
	if err != nil {
		return nil, nil, err
	}
	var b merkle.Builder
	files := map[digest.Digest]string{}
	for i, f := range found {
		if err := b.File(f.Path, digests[i]); err != nil {
			return nil, nil, inputError{err}
		}
		files[digests[i]] = f.Abs
	}
	tree, err := b.Build()
	if err != nil {
		return nil, nil, inputError{err}
	}
	return files, tree, nil
}

// outside is a plugin that is started when something has to be built.
type outside struct {
	program  string
	digest   digest.Digest
	compiled bool // its bytes are all that it is
	report   func(string)
	process  *plugin.Process
}

// Builder implements build.Builders.
func (p *outside) Builder(ctx context.Context, _ string) (_ plugin.Builder, err error) {
	if p.process == nil {
		p.process, err = plugin.Start(ctx, plugin.Options{
			Command: []string{p.program}, ReadOnly: interpreterOf(p.program), Sandbox: true, Report: p.report,
		})
	}
	if err != nil {
		return nil, err
	}
	return p.process, nil
}

func (p *outside) close() {
	if p.process != nil {
		_ = p.process.Close()
	}
}

// identify hashes the plugin's program. The first line of a script says where its interpreter is on this machine, and is
// left out.
func (p *outside) identify() error {
	content, err := os.ReadFile(p.program)
	if err != nil {
		return err
	}
	p.compiled = bytes.HasPrefix(content, []byte("\x7fELF"))
	if _, rest, ok := bytes.Cut(content, []byte("\n")); ok && bytes.HasPrefix(content, []byte("#!")) {
		content = rest
	}
	p.digest = digest.FromBytes(content)
	return nil
}

// describe returns what a plugin is. What a compiled program said once is kept, by its bytes, so that a hit starts no
// process. A script is asked each time: its modules may change while it stays the same.
func (s *session) describe(ctx context.Context, p *outside) (d plugin.Description, err error) {
	kept := filepath.Join(s.app.stateDir(), "plugins", digest.FromBytes([]byte(p.program+"\x00"+p.digest.String())).Hash()+".json")
	if b, err := durable.ReadFile(kept); err == nil && p.compiled && json.Unmarshal(b, &d) == nil && d.OutputVersion != "" {
		return d, nil
	}
	b, err := p.Builder(ctx, "")
	if err != nil {
		return d, err
	}
	if d, err = b.Describe(ctx); err != nil {
		return d, err
	}
	if !p.compiled {
		return d, nil
	}
	content, err := json.Marshal(d)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(kept), 0o700)
	}
	if err != nil {
		return d, err
	}
	return d, durable.WriteFile(kept, content, 0o600)
}
