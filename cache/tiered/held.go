package tiered

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// namesTrouble returns errHeld if the result names a blob that was refused or lost.
func (c carrier) namesTrouble(ctx context.Context, action key, ar *repb.ActionResult) error {
	if c.w.trouble.none() {
		return nil
	}
	fn := action.digest.Function()
	held := func(p *repb.Digest) error {
		if p == nil {
			return nil
		}
		d, err := fn.FromProto(p)
		if err == nil && c.w.trouble.troubled(key{c.ns, d}) {
			err = fmt.Errorf("result of action %s: %w: %s", action.digest, errHeld, d)
		}
		return err
	}
	all := []*repb.Digest{ar.GetStdoutDigest(), ar.GetStderrDigest()}
	for _, f := range ar.GetOutputFiles() {
		all = append(all, f.GetDigest())
	}
	for _, dir := range ar.GetOutputDirectories() {
		all = append(all, dir.GetTreeDigest(), dir.GetRootDirectoryDigest())
		if err := errors.Join(held(dir.GetTreeDigest()), held(dir.GetRootDirectoryDigest())); err != nil {
			return err
		}
		files, err := c.filesOf(ctx, fn, dir.GetTreeDigest())
		if err != nil {
			return err
		}
		all = append(all, files...)
	}
	for _, p := range all {
		if err := held(p); err != nil {
			return err
		}
	}
	return nil
}

// filesOf returns the files in a Tree, which is in the back by now.
func (c carrier) filesOf(ctx context.Context, fn digest.Function, p *repb.Digest) ([]*repb.Digest, error) {
	if p == nil {
		return nil, nil
	}
	d, err := fn.FromProto(p)
	if err != nil {
		return nil, err
	}
	tree := new(repb.Tree)
	if err := cache.ReadMessage(ctx, c.to, d, tree); err != nil {
		return nil, fmt.Errorf("%w, as far as can be seen: %w", errHeld, err)
	}
	var files []*repb.Digest
	for _, dir := range append(tree.GetChildren(), tree.GetRoot()) {
		for _, f := range dir.GetFiles() {
			files = append(files, f.GetDigest())
		}
	}
	return files, nil
}
