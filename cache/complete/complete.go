// Package complete is an ActionCache decorator that keeps REAPI's promise about results: one is returned only when the
// CAS holds everything it reaches.
package complete

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

type actionCache struct {
	base cache.ActionCache
	cas  cache.CAS
}

// New returns an ActionCache that answers from base, and reports a result as not found when cas lacks a part of it:
// a backend evicts blobs by age, without knowing which result still names them, and a build that is handed a result
// with a gap fails far from the cause. An update is refused for the same reason. Asking also renews the use of every
// blob that the result reaches.
func New(cas cache.CAS, base cache.ActionCache) cache.ActionCache {
	return &actionCache{base, cas}
}

// GetActionResult implements cache.ActionCache.
func (c *actionCache) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	ar, err := c.base.GetActionResult(ctx, action)
	if err != nil {
		return nil, err
	}
	missing, err := c.missing(ctx, ar)
	if errors.Is(err, cache.ErrNotFound) || errors.Is(err, digest.ErrMismatch) {
		return nil, fmt.Errorf("%w: %w", cache.NotFound("a part of the ActionResult of", action), err)
	}
	if err != nil {
		return nil, fmt.Errorf("check the ActionResult of %s: %w", action, err)
	}
	if len(missing) > 0 {
		return nil, cache.NotFound(fmt.Sprintf("blob %s and %d others of the ActionResult of", missing[0], len(missing)-1), action)
	}
	return ar, nil
}

// UpdateActionResult implements cache.ActionCache.
func (c *actionCache) UpdateActionResult(ctx context.Context, action digest.Digest, ar *repb.ActionResult) error {
	missing, err := c.missing(ctx, ar)
	if err != nil {
		return fmt.Errorf("check the ActionResult of %s: %w", action, err)
	}
	if len(missing) > 0 {
		return fmt.Errorf("the ActionResult of %s names %d blobs that are not in the CAS, %s among them: %w",
			action, len(missing), missing[0], cache.ErrNotFound)
	}
	return c.base.UpdateActionResult(ctx, action, ar)
}

func (c *actionCache) missing(ctx context.Context, ar *repb.ActionResult) ([]digest.Digest, error) {
	all, err := Closure(ctx, c.cas, ar)
	if err != nil {
		return nil, err
	}
	return c.cas.FindMissing(ctx, all)
}

// Closure returns all that a result reaches: Tree messages, their Directories, files, standard output and error. A Tree
// or Directory that cannot be read is an error.
func Closure(ctx context.Context, cas cache.CAS, ar *repb.ActionResult) ([]digest.Digest, error) {
	var c closure
	for _, f := range ar.GetOutputFiles() {
		c.add(f.GetDigest())
	}
	for _, p := range []*repb.Digest{ar.GetStdoutDigest(), ar.GetStderrDigest()} {
		if p != nil {
			c.add(p)
		}
	}
	for _, out := range ar.GetOutputDirectories() {
		c.addDirectory(ctx, cas, out)
	}
	return c.all, c.err
}

// closure collects digests until the first error.
type closure struct {
	seen map[digest.Digest]bool
	all  []digest.Digest
	err  error
}

func (c *closure) add(p *repb.Digest) {
	d, err := digest.FromProto(p)
	if err != nil {
		c.fail(err)
		return
	}
	c.addDigest(d)
}

func (c *closure) addDigest(d digest.Digest) {
	if c.seen == nil {
		c.seen = map[digest.Digest]bool{}
	}
	if !c.seen[d] {
		c.seen[d] = true
		c.all = append(c.all, d)
	}
}

func (c *closure) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// addDirectory adds what an output directory reaches. Its root Directory may be named directly, through a Tree, or both
// ways; named both ways, each must be there, since clients read either.
func (c *closure) addDirectory(ctx context.Context, cas cache.CAS, out *repb.OutputDirectory) {
	if out.GetTreeDigest() == nil && out.GetRootDirectoryDigest() == nil {
		c.fail(fmt.Errorf("output directory %.200q names no tree", out.GetPath()))
		return
	}
	if p := out.GetTreeDigest(); p != nil {
		c.add(p)
		if t := c.load(readTree(ctx, cas, p)); t != nil {
			for _, d := range t.Files() {
				c.addDigest(d)
			}
			if root := out.GetRootDirectoryDigest(); root != nil {
				c.addRoot(t, root)
				return
			}
		}
		return
	}
	d, err := digest.FromProto(out.GetRootDirectoryDigest())
	if err != nil {
		c.fail(err)
		return
	}
	if t := c.load(merkle.Load(ctx, cas, d)); t != nil {
		for _, d := range t.Files() {
			c.addDigest(d)
		}
		c.addRoot(t, out.GetRootDirectoryDigest())
	}
}

// addRoot adds the Directories of t, which must be the tree whose root is named.
func (c *closure) addRoot(t *merkle.Tree, root *repb.Digest) {
	if d, err := digest.FromProto(root); err != nil || d != t.Root() {
		c.fail(fmt.Errorf("tree_digest and root_directory_digest %v name different trees", root))
		return
	}
	for d := range t.Blobs() {
		c.addDigest(d)
	}
}

func (c *closure) load(t *merkle.Tree, err error) *merkle.Tree {
	if err != nil {
		c.fail(err)
		return nil
	}
	return t
}

func readTree(ctx context.Context, cas cache.CAS, p *repb.Digest) (*merkle.Tree, error) {
	d, err := digest.FromProto(p)
	if err != nil {
		return nil, err
	}
	var msg repb.Tree
	if err := cache.ReadMessage(ctx, cas, d, &msg); err != nil {
		return nil, err
	}
	return merkle.FromProto(&msg)
}
