package main

import (
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/plugin/build"
	"github.com/pexpress/pexpress/plugin/project"
)

// spec is what was built as a codeserver's version.
func (b *built) spec() *codeserverpb.VersionSpec {
	spec := &codeserverpb.VersionSpec{
		DepsRoot:   b.deps.Root.Proto(),
		SourceRoot: b.source.Root.Proto(),
		Python:     b.depsPlan.target.Python,
		Entry:      entry(b.location, b.plan.sources.Roots),
		Env:        b.location.Env,
		Secrets:    b.location.SecretEnv,
		Cold:       b.location.Cold,
	}
	if l := b.location.Limits; l != (project.Limits{}) {
		spec.Limits = &codeserverpb.Limits{
			MemoryBytes: l.Memory, CpuMillis: l.CPUMillis, Pids: l.Pids, OpenFiles: l.OpenFiles, TmpBytes: l.Tmp,
		}
	}
	for _, o := range b.outputs {
		if spec.Outputs == nil {
			spec.Outputs = map[string]*repb.Digest{}
		}
		spec.Outputs[o.name] = o.Root.Proto()
	}
	return spec
}

// namedResult is an output with the name that people know it by.
type namedResult struct {
	name string
	*build.Result
}

// all returns the outputs of a build.
func (b *built) all() []namedResult {
	return append([]namedResult{{"deps.pex", b.deps}, {"source.pex", b.source}}, b.outputs...)
}
