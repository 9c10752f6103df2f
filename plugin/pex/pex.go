// Package pex is the PEX builder: it composes deps.pex and source.pex, as trees of blobs in a CAS, from the inputs that
// package action plans, and writes such trees out as PEX files.
//
// Both are PEXes as the pinned pex itself would write them, so that they run anywhere without pexpress; no Python runs
// to make them. deps.pex has pex's packed layout with wheels kept byte for byte, source.pex its loose layout, one blob a
// file. docs/pex-info.md lists each field of PEX-INFO and where these PEXes differ from pex's own, and why.
package pex

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin"
	"github.com/pexpress/pexpress/plugin/action"
)

// OutputVersion is part of every Action: it changes whenever the same inputs would give other outputs. The golden
// digests in testdata notice when it should have.
const OutputVersion = "pex-1"

// maxBootstrap bounds the pex wheel, which is held in memory.
const maxBootstrap = 64 << 20

type builder struct{}

// New returns the PEX builder.
func New() plugin.Builder { return builder{} }

// Describe implements plugin.Builder.
func (builder) Describe(context.Context) (plugin.Description, error) {
	return plugin.Description{
		Name: "pex", OutputVersion: OutputVersion,
		Kinds: []string{action.KindBootstrap, action.KindDeps, action.KindSource},
	}, nil
}

// Build implements plugin.Builder.
func (builder) Build(ctx context.Context, cas cache.CAS, d digest.Digest) (*repb.ActionResult, error) {
	in, err := readInputs(ctx, cas, d)
	if err != nil {
		return nil, err
	}
	b := &composer{inputs: in, blobs: map[digest.Digest][]byte{}}
	switch in.kind {
	case action.KindBootstrap:
		err = b.unpackBootstrap(ctx, cas)
	case action.KindDeps:
		err = b.deps()
	case action.KindSource:
		err = b.source()
	default:
		err = fmt.Errorf("%w: the PEX builder makes %q, %q and %q, not %.80q", plugin.ErrInvalidAction,
			action.KindBootstrap, action.KindDeps, action.KindSource, in.kind)
	}
	if err != nil {
		return nil, err
	}
	return b.store(ctx, cas)
}

// inputs is what an Action gives the builder.
type inputs struct {
	kind      string
	output    string
	root      *merkle.Tree
	spec      action.Spec
	wheels    []action.File // sorted by name
	source    *merkle.Tree
	runtime   *merkle.Tree  // of the bootstrap: the files of .bootstrap
	zipped    digest.Digest // the same as one zip
	bootstrap bootstrap
}

func readInputs(ctx context.Context, cas cache.CAS, d digest.Digest) (*inputs, error) {
	var a repb.Action
	if err := cache.ReadMessage(ctx, cas, d, &a); err != nil {
		return nil, fmt.Errorf("%w: action %s: %w", plugin.ErrInputUnreadable, d, err)
	}
	if err := checkOutputVersion(a.GetPlatform()); err != nil {
		return nil, err
	}
	command, tree, err := readNamed(ctx, cas, &a)
	if err != nil {
		return nil, fmt.Errorf("%w: action %s: %w", plugin.ErrInputUnreadable, d, err)
	}
	args := command.GetArguments()
	if len(args) != 3 || args[0] != "pexpress" || args[1] != "builder" || len(command.GetOutputPaths()) != 1 {
		return nil, fmt.Errorf("%w: a Command of the PEX builder is [pexpress builder KIND] with one output path, not %.300q with %.300q",
			plugin.ErrInvalidAction, args, command.GetOutputPaths())
	}
	in := &inputs{kind: args[2], output: command.GetOutputPaths()[0], root: tree}
	return in, in.read(ctx, cas, tree)
}

// readNamed returns an Action's Command and its input root, which are read side by side.
func readNamed(ctx context.Context, cas cache.CAS, a *repb.Action) (*repb.Command, *merkle.Tree, error) {
	commandDigest, err := digest.FromProto(a.GetCommandDigest())
	if err != nil {
		return nil, nil, err
	}
	root, err := digest.FromProto(a.GetInputRootDigest())
	if err != nil {
		return nil, nil, err
	}
	var command repb.Command
	var tree *merkle.Tree
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return cache.ReadMessage(ctx, cas, commandDigest, &command) })
	g.Go(func() (err error) {
		tree, err = merkle.Load(ctx, cas, root)
		return err
	})
	err = g.Wait()
	return &command, tree, err
}

func checkOutputVersion(platform *repb.Platform) error {
	for _, p := range platform.GetProperties() {
		if p.GetName() == action.OutputVersionProperty && p.GetValue() == OutputVersion {
			return nil
		}
	}
	return fmt.Errorf("%w: the Action asks for %v, this builder writes %s=%s", plugin.ErrOutputVersion,
		platform.GetProperties(), action.OutputVersionProperty, OutputVersion)
}

// read finds the inputs in the input root.
func (in *inputs) read(ctx context.Context, cas cache.CAS, root *merkle.Tree) error {
	if wheels, ok := root.Sub(action.WheelsDir); ok {
		for name, d := range wheels.Files() {
			in.wheels = append(in.wheels, action.File{Name: name, Digest: d})
		}
	}
	if in.kind == action.KindBootstrap {
		return nil
	}
	in.source, _ = root.Sub(action.SourceDir)
	boot, ok := root.Sub(action.BootstrapDir)
	if ok {
		in.runtime, ok = boot.Sub(runtimeDir)
	}
	if !ok {
		return fmt.Errorf("%w: the input root has no bootstrap", plugin.ErrInvalidAction)
	}
	made := map[string]digest.Digest{} // the files that are read here
	for _, t := range []*merkle.Tree{root, boot} {
		top, _ := t.Directory(t.Root())
		for _, f := range top.GetFiles() {
			made[f.GetName()], _ = digest.FromProto(f.GetDigest())
		}
	}
	for name, d := range in.runtime.Files() {
		if name == bootFile {
			made[bootFile] = d
		}
	}
	in.zipped = made[zipFile]
	content, err := readFiles(ctx, cas, made, action.SpecFile, factsFile, bootFile)
	if err != nil {
		return err
	}
	in.bootstrap.boot = string(content[2])
	return errors.Join(readJSON(action.SpecFile, content[0], &in.spec), readJSON(factsFile, content[1], &in.bootstrap.facts))
}

func readJSON(name string, content []byte, v any) error {
	if err := json.Unmarshal(content, v); err != nil {
		return fmt.Errorf("%w: %s: %w", plugin.ErrInvalidAction, name, err)
	}
	return nil
}

// readFiles returns the contents of input files, which are asked for at once.
func readFiles(ctx context.Context, cas cache.CAS, files map[string]digest.Digest, names ...string) ([][]byte, error) {
	contents, ds := make([][]byte, len(names)), make([]digest.Digest, len(names))
	for i, name := range names {
		var ok bool
		if ds[i], ok = files[name]; !ok {
			return nil, fmt.Errorf("%w: the input root has no %s", plugin.ErrInvalidAction, name)
		}
		if ds[i].Size() > maxBootstrap {
			return nil, fmt.Errorf("%w: %s has %d bytes, which is more than %d", plugin.ErrInvalidAction, name, ds[i].Size(), maxBootstrap)
		}
	}
	var unread error
	err := cache.GetAll(ctx, cas, ds, maxBootstrap, func(i int, data []byte, err error) {
		contents[i], unread = bytes.Clone(data), errors.Join(unread, err)
	})
	if err = errors.Join(err, unread); err != nil {
		return nil, fmt.Errorf("%w: %w", plugin.ErrInputUnreadable, err)
	}
	return contents, nil
}
