package bytecode

import (
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/venv"
)

// outputVersion changes when the output does for another reason than compile.py, which is an input: how a wheel is unpacked,
// which of its files are modules, and in what order they are compiled.
const outputVersion = "1"

// output is the path of the Action's one output directory.
const output = "bytecode"

// plan returns the digest of the Action whose output is a wheel's bytecode, and the messages and files that it consists of,
// but for the wheel. The interpreter's full version is in it: releases with one magic number need not compile alike. The
// key's name is in it, so that fleets which share a cache and nothing else do not write over each other's results.
func plan(w venv.Wheel, py *venv.Interpreter, key *Key) (digest.Digest, []cache.Blob, error) {
	script := digest.FromBytes(program)
	var b merkle.Builder
	if err := b.File("compile.py", script); err != nil {
		return digest.Digest{}, nil, err
	}
	if err := b.File("wheel.whl", w.Digest); err != nil {
		return digest.Digest{}, nil, err
	}
	root, err := b.Build()
	if err != nil {
		return digest.Digest{}, nil, err
	}
	blobs := []cache.Blob{{Digest: script, Data: program}}
	for d, data := range root.Blobs() {
		blobs = append(blobs, cache.Blob{Digest: d, Data: data})
	}
	platform := &repb.Platform{Properties: []*repb.Platform_Property{ // sorted by name, as REAPI asks
		{Name: "pexpress-bytecode-key", Value: key.name},
		{Name: "pexpress-output-version", Value: outputVersion},
		{Name: "python-cache-tag", Value: py.Tag},
		{Name: "python-implementation", Value: "cpython"}, // venv.Find returns no other
		{Name: "python-magic", Value: py.Magic},
		{Name: "python-version", Value: py.FullVersion},
	}}
	command, cd, err := digest.Marshal(&repb.Command{
		Arguments: []string{"pexpress-bytecode", "wheel.whl"}, OutputPaths: []string{output},
		OutputDirectoryFormat: repb.Command_TREE_AND_DIRECTORY,
		//lint:ignore SA1019 REAPI: servers older than 2.2 look for it here only
		Platform: platform,
	})
	if err != nil {
		return digest.Digest{}, nil, err
	}
	action, ad, err := digest.Marshal(&repb.Action{
		CommandDigest: cd.Proto(), InputRootDigest: root.Root().Proto(), Platform: platform,
	})
	return ad, append(blobs, cache.Blob{Digest: cd, Data: command}, cache.Blob{Digest: ad, Data: action}), err
}
