package action_test

import (
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/action"
)

func tree(t *testing.T, files map[string]string) *merkle.Tree {
	var b merkle.Builder
	for name, content := range files {
		require.NoError(t, b.File(name, digest.FromBytes([]byte(content))))
	}
	built, err := b.Build()
	require.NoError(t, err)
	return built
}

func wheel(name, content string) action.File {
	return action.File{Name: name, Digest: digest.FromBytes([]byte(content))}
}

func deps(t *testing.T) action.DepsInput {
	return action.DepsInput{
		Wheels:    []action.File{wheel("a-1-py3-none-any.whl", "a"), wheel("b-1-py3-none-any.whl", "b")},
		Bootstrap: tree(t, map[string]string{"runtime/x.py": "x"}),
		Python:    "3.11", Platform: "manylinux_2_28_x86_64", OutputVersion: "1",
	}
}

// TestDeps checks that a deps Action follows from each of its inputs, and not from the order in which they come. The
// digest holds over time: whoever changes it empties everybody's cache.
func TestDeps(t *testing.T) {
	base, err := action.Deps(deps(t))
	require.NoError(t, err)
	require.Equal(t, "716a8aa1858637102e4fa18d78932cacefd271d4da8c01a199343e78a033fda5", base.Digest.Hash())
	seen := map[digest.Digest]string{base.Digest: "base"}
	for name, change := range map[string]func(*action.DepsInput){
		"wheel's content": func(in *action.DepsInput) { in.Wheels[0] = wheel("a-1-py3-none-any.whl", "other") },
		"wheel's name":    func(in *action.DepsInput) { in.Wheels[0] = wheel("a-2-py3-none-any.whl", "a") },
		"one more wheel":  func(in *action.DepsInput) { in.Wheels = append(in.Wheels, wheel("c-1-py3-none-any.whl", "c")) },
		"bootstrap":       func(in *action.DepsInput) { in.Bootstrap = tree(t, map[string]string{"runtime/x.py": "y"}) },
		"python":          func(in *action.DepsInput) { in.Python = "3.12" },
		"platform":        func(in *action.DepsInput) { in.Platform = "musllinux_1_2_x86_64" },
		"output version":  func(in *action.DepsInput) { in.OutputVersion = "2" },
	} {
		in := deps(t)
		change(&in)
		p, err := action.Deps(in)
		require.NoError(t, err)
		require.NotContains(t, seen, p.Digest, "%s is like %s", name, seen[p.Digest])
		seen[p.Digest] = name
	}
	in := deps(t)
	in.Wheels[0], in.Wheels[1] = in.Wheels[1], in.Wheels[0]
	p, err := action.Deps(in)
	require.NoError(t, err)
	require.Equal(t, base.Digest, p.Digest)
}

func TestSourceRootsAreOrdered(t *testing.T) {
	in := action.SourceInput{
		Tree: tree(t, map[string]string{"a/x.py": "1", "b/x.py": "2"}), Bootstrap: deps(t).Bootstrap,
		Python: "3.11", Platform: "any", SourceRoots: []string{"a", "b"}, OutputVersion: "1",
	}
	p, err := action.Source(in)
	require.NoError(t, err)
	in.SourceRoots = []string{"b", "a"}
	q, err := action.Source(in)
	require.NoError(t, err)
	require.NotEqual(t, p.Digest, q.Digest, "what is imported first matters")
}

// TestUpload checks that the CAS then holds all that the Action names but the inputs' contents.
func TestUpload(t *testing.T) {
	ctx := t.Context()
	p, err := action.Deps(deps(t))
	require.NoError(t, err)
	m := memory.New()
	require.NoError(t, p.Upload(ctx, m))
	var a repb.Action
	require.NoError(t, cache.ReadMessage(ctx, m, p.Digest, &a))
	cd, err := digest.FromProto(a.GetCommandDigest())
	require.NoError(t, err)
	var c repb.Command
	require.NoError(t, cache.ReadMessage(ctx, m, cd, &c))
	require.Equal(t, []string{"pexpress", "builder", "deps"}, c.GetArguments())
	require.Equal(t, []string{"deps.pex"}, c.GetOutputPaths())
	root, err := digest.FromProto(a.GetInputRootDigest())
	require.NoError(t, err)
	loaded, err := merkle.Load(ctx, m, root)
	require.NoError(t, err)
	var paths []string
	for path, d := range loaded.Files() {
		paths = append(paths, path)
		if path == action.SpecFile {
			_, err := m.Get(ctx, d)
			require.NoError(t, err)
		}
	}
	require.ElementsMatch(t, []string{
		"spec.json", "bootstrap/runtime/x.py", "wheels/a-1-py3-none-any.whl", "wheels/b-1-py3-none-any.whl",
	}, paths)
}

func TestRefused(t *testing.T) {
	for name, change := range map[string]func(*action.DepsInput){
		"no wheel":       func(in *action.DepsInput) { in.Wheels[0].Name = "a.tar.gz" },
		"a path":         func(in *action.DepsInput) { in.Wheels[0].Name = "../a-1-py3-none-any.whl" },
		"twice":          func(in *action.DepsInput) { in.Wheels[1] = in.Wheels[0] },
		"no digest":      func(in *action.DepsInput) { in.Wheels[0].Digest = digest.Digest{} },
		"no python":      func(in *action.DepsInput) { in.Python = "" },
		"no platform":    func(in *action.DepsInput) { in.Platform = "" },
		"no out version": func(in *action.DepsInput) { in.OutputVersion = "" },
	} {
		in := deps(t)
		change(&in)
		_, err := action.Deps(in)
		require.Error(t, err, name)
	}
}
