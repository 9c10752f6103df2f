package action

import (
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// PluginProperty names the platform property that holds the digest of an outside plugin's program: its author may forget to
// raise the output version.
const PluginProperty = "pexpress-plugin-digest"

// InputsDir is where an outside plugin finds its inputs in the input root.
const InputsDir = "inputs"

// OutputInput is what a tree follows from that an outside plugin makes.
type OutputInput struct {
	// Name is the output's, Kind what the plugin is to make.
	Name, Kind    string
	Inputs        *merkle.Tree
	OutputVersion string
	Program       digest.Digest
}

// Output plans a tree that an outside plugin makes.
func Output(in OutputInput) (*Plan, error) {
	if in.OutputVersion == "" || in.Program.IsZero() || in.Kind == "" {
		return nil, fmt.Errorf("%w: output %s needs a kind, and the plugin's output version and digest", ErrInput, in.Name)
	}
	var b merkle.Builder
	if err := b.Graft(InputsDir, in.Inputs); err != nil {
		return nil, fmt.Errorf("inputs of %s: %w", in.Name, err)
	}
	root, err := b.Build()
	if err != nil {
		return nil, err
	}
	p := &Plan{Kind: in.Kind, Output: in.Name, InputRoot: root}
	return p, p.messagesFor(
		&repb.Platform_Property{Name: OutputVersionProperty, Value: in.OutputVersion},
		&repb.Platform_Property{Name: PluginProperty, Value: in.Program.String()},
	)
}
