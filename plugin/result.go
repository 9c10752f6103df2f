package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// checkResult checks that a result is one of the Action's: exactly its outputs, each a tree whose Tree message and root
// Directory agree. That all blobs are in the CAS is checked when the result enters the ActionCache.
func checkResult(ctx context.Context, cas cache.CAS, action digest.Digest, result *repb.ActionResult) error {
	if result == nil {
		return errors.New("it is empty")
	}
	var a repb.Action
	if err := cache.ReadMessage(ctx, cas, action, &a); err != nil {
		return err
	}
	cd, err := digest.FromProto(a.GetCommandDigest())
	if err != nil {
		return err
	}
	var c repb.Command
	if err := cache.ReadMessage(ctx, cas, cd, &c); err != nil {
		return err
	}
	if result.GetExitCode() != 0 {
		return fmt.Errorf("its exit code is %d", result.GetExitCode())
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
	}
	want := slices.Sorted(slices.Values(c.GetOutputPaths()))
	if slices.Sort(got); !slices.Equal(got, want) {
		return fmt.Errorf("its outputs are %.300q, the Command asks for %q", got, want)
	}
	return nil
}

func checkTree(ctx context.Context, cas cache.CAS, out *repb.OutputDirectory) error {
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
	return nil
}
