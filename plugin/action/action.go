// Package action plans: it computes the REAPI Actions of deps.pex and source.pex, and with them what a build's result
// will be looked up by.
//
// Planning is pure. The same inputs give the same Action digest on every machine; this package imports nothing that
// could tell machines apart (the layer check holds it to that). A deps Action's inputs are the selected wheels, the
// bootstrap, the target and the builder's output version, never the lock's text.
package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// Kinds of Actions: the third argument of their Commands.
const (
	KindBootstrap = "bootstrap"
	KindDeps      = "deps"
	KindSource    = "source"
)

// Where things are in an input root.
const (
	SpecFile     = "spec.json"
	WheelsDir    = "wheels"
	BootstrapDir = "bootstrap"
	SourceDir    = "source"
)

// OutputVersionProperty names the platform property that holds the builder's output version.
const OutputVersionProperty = "pexpress-output-version"

// ErrInput is wrapped by the errors of planning: the inputs make no sense together.
var ErrInput = errors.New("cannot be planned")

// File is an input: a wheel by its file name.
type File struct {
	Name   string
	Digest digest.Digest
}

// Spec is what an input root's spec.json says to the builder.
type Spec struct {
	// Python is the target's version, such as "3.11"; Platform its platform tag, such as "manylinux_2_28_x86_64".
	Python   string `json:"python"`
	Platform string `json:"platform"`
	// SourceRoots are the directories of the source tree to import from, in order.
	SourceRoots []string `json:"source_roots,omitempty"`
}

// BootstrapInput is what the bootstrap follows from: pex's runtime, taken out of its wheel once and for all.
type BootstrapInput struct {
	Wheel         File
	OutputVersion string
}

// DepsInput is what deps.pex follows from.
type DepsInput struct {
	Wheels        []File
	Bootstrap     *merkle.Tree // output of a bootstrap Action
	Python        string
	Platform      string
	OutputVersion string
}

// SourceInput is what source.pex follows from.
type SourceInput struct {
	Tree          *merkle.Tree
	Bootstrap     *merkle.Tree // output of a bootstrap Action
	Python        string
	Platform      string
	SourceRoots   []string
	OutputVersion string
}

// Plan is an Action that has been computed and not run.
type Plan struct {
	Kind    string
	Action  *repb.Action
	Command *repb.Command
	// Digest is the Action's digest.
	Digest digest.Digest
	// Output is the path of the one output directory.
	Output string
	// InputRoot is the tree of the Action's inputs; Blobs are those of its files that planning itself made.
	InputRoot *merkle.Tree
	Blobs     map[digest.Digest][]byte

	messages []cache.Blob
}

// Bootstrap plans the bootstrap that every PEX carries. It is an Action of its own, so that an edit of one source file
// does not unpack it again.
func Bootstrap(in BootstrapInput) (*Plan, error) {
	var b merkle.Builder
	if err := addWheel(&b, WheelsDir, in.Wheel); err != nil {
		return nil, err
	}
	return plan(KindBootstrap, KindBootstrap, &b, nil, in.OutputVersion)
}

// Deps plans deps.pex.
func Deps(in DepsInput) (*Plan, error) {
	var b merkle.Builder
	wheels := slices.Clone(in.Wheels)
	slices.SortFunc(wheels, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for _, w := range wheels {
		if err := addWheel(&b, WheelsDir, w); err != nil {
			return nil, err
		}
	}
	return pexPlan(KindDeps, &b, in.Bootstrap, Spec{Python: in.Python, Platform: in.Platform}, in.OutputVersion)
}

// Source plans source.pex.
func Source(in SourceInput) (*Plan, error) {
	var b merkle.Builder
	if err := b.Graft(SourceDir, in.Tree); err != nil {
		return nil, fmt.Errorf("source tree: %w", err)
	}
	spec := Spec{Python: in.Python, Platform: in.Platform, SourceRoots: in.SourceRoots}
	return pexPlan(KindSource, &b, in.Bootstrap, spec, in.OutputVersion)
}

func addWheel(b *merkle.Builder, dir string, w File) error {
	if !strings.HasSuffix(w.Name, ".whl") || strings.ContainsAny(w.Name, "/\\") {
		return fmt.Errorf("%w: %q is not a wheel's file name", ErrInput, w.Name)
	}
	return b.File(dir+"/"+w.Name, w.Digest)
}

// pexPlan plans an Action whose output is a PEX.
func pexPlan(kind string, b *merkle.Builder, bootstrap *merkle.Tree, spec Spec, outputVersion string) (*Plan, error) {
	if spec.Python == "" || spec.Platform == "" {
		return nil, fmt.Errorf("%w: a %s action needs a Python version and a platform", ErrInput, kind)
	}
	if err := b.Graft(BootstrapDir, bootstrap); err != nil {
		return nil, err
	}
	content, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	d := digest.FromBytes(content)
	if err := b.File(SpecFile, d); err != nil {
		return nil, err
	}
	return plan(kind, kind+".pex", b, map[digest.Digest][]byte{d: content}, outputVersion)
}

func plan(kind, output string, b *merkle.Builder, blobs map[digest.Digest][]byte, outputVersion string) (*Plan, error) {
	if outputVersion == "" {
		return nil, fmt.Errorf("%w: a %s action needs the builder's output version", ErrInput, kind)
	}
	root, err := b.Build()
	if err != nil {
		return nil, err
	}
	p := &Plan{Kind: kind, Output: output, InputRoot: root, Blobs: blobs}
	return p, p.messagesFor(&repb.Platform_Property{Name: OutputVersionProperty, Value: outputVersion})
}

// messagesFor makes the Command and the Action. Platform properties are sorted by name, as REAPI asks.
func (p *Plan) messagesFor(properties ...*repb.Platform_Property) error {
	platform := &repb.Platform{Properties: properties}
	p.Command = &repb.Command{
		Arguments:             []string{"pexpress", "builder", p.Kind},
		OutputPaths:           []string{p.Output},
		OutputDirectoryFormat: repb.Command_TREE_AND_DIRECTORY,
		//lint:ignore SA1019 REAPI: servers older than 2.2 look for it here only
		Platform: platform,
	}
	command, cd, err := digest.Marshal(p.Command)
	if err != nil {
		return err
	}
	p.Action = &repb.Action{CommandDigest: cd.Proto(), InputRootDigest: p.InputRoot.Root().Proto(), Platform: platform}
	action, ad, err := digest.Marshal(p.Action)
	if err != nil {
		return err
	}
	p.Digest = ad
	p.messages = []cache.Blob{{Digest: cd, Data: command}, {Digest: ad, Data: action}}
	return nil
}

// Upload stores the Action, its Command, the input root's Directories and the files that planning made. The other files
// must be in the CAS already.
func (p *Plan) Upload(ctx context.Context, cas cache.CAS) error {
	blobs := slices.Clone(p.messages)
	for d, b := range p.Blobs {
		blobs = append(blobs, cache.Blob{Digest: d, Data: b})
	}
	for d, b := range p.InputRoot.Blobs() {
		blobs = append(blobs, cache.Blob{Digest: d, Data: b})
	}
	return cache.PutAll(ctx, cas, blobs)
}
