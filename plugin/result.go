package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/sandbox"
)

// validName is what a builder or one of its kinds may be called.
var validName = lazy.Regexp(`^[a-z0-9][a-z0-9-]{0,63}$`)

// checkDescription checks what becomes part of Actions and of messages.
func checkDescription(d Description) error {
	if !validName().MatchString(d.Name) {
		return fmt.Errorf("its name %.80q is not made of lower-case letters, digits and hyphens", d.Name)
	}
	for _, k := range d.Kinds {
		if !validName().MatchString(k) {
			return fmt.Errorf("its kind %.80q is not made of lower-case letters, digits and hyphens", k)
		}
	}
	if v := d.OutputVersion; v == "" || len(v) > 256 || slices.ContainsFunc([]rune(v), func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsPrint(r)
	}) {
		return fmt.Errorf("its output version %.80q is not 1 to 256 printable ASCII characters", v)
	}
	return nil
}

// readCommand returns an Action's Command.
func readCommand(ctx context.Context, cas cache.CAS, action digest.Digest) (*repb.Command, error) {
	var a repb.Action
	if err := cache.ReadMessage(ctx, cas, action, &a); err != nil {
		return nil, err
	}
	d, err := digest.FromProto(a.GetCommandDigest())
	if err != nil {
		return nil, fmt.Errorf("command_digest: %w", err)
	}
	var c repb.Command
	return &c, cache.ReadMessage(ctx, cas, d, &c)
}

// checkResult checks that a result is one of the Action's: exactly its outputs, each a canonical tree whose Tree message
// and root Directory agree, made of nothing but what the Action declares and what the builder wrote. That all of that is
// in the CAS still is checked when the result enters the ActionCache.
func checkResult(ctx context.Context, cas *sandbox.Scoped, command *repb.Command, result *repb.ActionResult) error {
	if result == nil {
		return errors.New("it is empty")
	}
	if result.GetExitCode() != 0 {
		return fmt.Errorf("its exit code is %d: a build that fails answers with an error", result.GetExitCode())
	}
	var got []string
	for _, out := range result.GetOutputDirectories() {
		got = append(got, out.GetPath())
		if err := checkTree(ctx, cas, out); err != nil {
			return fmt.Errorf("output directory %.200q: %w", out.GetPath(), err)
		}
	}
	for _, out := range result.GetOutputFiles() {
		got = append(got, out.GetPath())
		if err := checkBlob(cas, out.GetDigest()); err != nil {
			return fmt.Errorf("output file %.200q: %w", out.GetPath(), err)
		}
	}
	want := slices.Sorted(slices.Values(command.GetOutputPaths()))
	if slices.Sort(got); !slices.Equal(got, want) {
		return fmt.Errorf("its outputs are %.300q, the Command asks for %q", got, want)
	}
	return checkRest(cas, result)
}

// checkRest checks what a result may hold besides its outputs.
func checkRest(cas *sandbox.Scoped, result *repb.ActionResult) error {
	//lint:ignore SA1019 REAPI: the fields of 2.0 are as much part of a result as those that replaced them
	old := len(result.GetOutputFileSymlinks()) + len(result.GetOutputDirectorySymlinks())
	if old+len(result.GetOutputSymlinks()) > 0 {
		return errors.New("an output is a symlink: outputs are trees and files")
	}
	for what, d := range map[string]*repb.Digest{"stdout": result.GetStdoutDigest(), "stderr": result.GetStderrDigest()} {
		if d == nil {
			continue
		}
		if err := checkBlob(cas, d); err != nil {
			return fmt.Errorf("%s_digest: %w", what, err)
		}
	}
	return nil
}

func checkBlob(cas *sandbox.Scoped, p *repb.Digest) error {
	d, err := digest.FromProto(p)
	if err != nil {
		return err
	}
	return inScope(cas, d)
}

// inScope refuses a blob that the builder can only have guessed or remembered: it would make the result depend on more
// than the Action says, and hand out what somebody else stored.
func inScope(cas *sandbox.Scoped, d digest.Digest) error {
	if !cas.Has(d) {
		return fmt.Errorf("blob %s: the builder neither wrote it nor found it among the Action's inputs", d)
	}
	return nil
}

func checkTree(ctx context.Context, cas *sandbox.Scoped, out *repb.OutputDirectory) error {
	td, err := digest.FromProto(out.GetTreeDigest())
	if err != nil {
		return fmt.Errorf("tree_digest: %w", err)
	}
	root, err := digest.FromProto(out.GetRootDirectoryDigest())
	if err != nil {
		return fmt.Errorf("root_directory_digest: %w", err)
	}
	var p repb.Tree
	if err := cache.ReadMessage(ctx, cas, td, &p); err != nil {
		return err
	}
	t, err := merkle.FromProto(&p)
	if err != nil {
		return err
	}
	if t.Root() != root {
		return fmt.Errorf("tree_digest and root_directory_digest name different trees, %s and %s", t.Root(), root)
	}
	for d := range t.Blobs() {
		if err := inScope(cas, d); err != nil {
			return fmt.Errorf("a Directory of it: %w", err)
		}
		dir, _ := t.Directory(d)
		if err := checkDirectory(cas, dir, d == root); err != nil {
			return fmt.Errorf("its Directory %s: %w", d, err)
		}
	}
	return nil
}

// checkDirectory checks what makes a Directory canonical beyond what package merkle asks of every tree, so that all
// tools arrive at the same digest.
func checkDirectory(cas *sandbox.Scoped, dir *repb.Directory, root bool) error {
	if len(dir.GetFiles())+len(dir.GetDirectories())+len(dir.GetSymlinks()) == 0 && !root {
		return errors.New("it is empty: leave it out")
	}
	properties := dir.GetNodeProperties() != nil
	for _, f := range dir.GetFiles() {
		properties = properties || f.GetNodeProperties() != nil
		if !f.GetIsExecutable() {
			return fmt.Errorf("file %.200q is not executable: canonical trees mark every file so", f.GetName())
		}
		if err := checkBlob(cas, f.GetDigest()); err != nil {
			return fmt.Errorf("file %.200q: %w", f.GetName(), err)
		}
	}
	for _, l := range dir.GetSymlinks() {
		properties = properties || l.GetNodeProperties() != nil
	}
	if properties {
		return errors.New("it has node_properties: canonical trees have none")
	}
	return nil
}
