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

// Closure returns all that a result reaches, each digest once: Tree messages, their Directories, files, standard output
// and error. Its digests are by fn, as the Action's is. Any client's trees will do, and what stands in one several times
// is walked once. A Tree or Directory that cannot be read is an error.
func Closure(ctx context.Context, cas cache.CAS, fn digest.Function, ar *repb.ActionResult) ([]digest.Digest, error) {
	c := closure{fn: fn, seen: map[digest.Digest]bool{}}
	for _, f := range ar.GetOutputFiles() {
		c.add(f.GetDigest())
	}
	for _, p := range []*repb.Digest{ar.GetStdoutDigest(), ar.GetStderrDigest()} {
		if p != nil {
			c.add(p)
		}
	}
	for _, out := range ar.GetOutputDirectories() {
		if c.err != nil {
			break
		}
		if err := c.addDirectory(ctx, cas, out); err != nil {
			c.fail(fmt.Errorf("output directory %.200q: %w", out.GetPath(), err))
		}
	}
	return c.all, c.err
}

// closure collects digests until the first error.
type closure struct {
	fn   digest.Function
	seen map[digest.Digest]bool
	all  []digest.Digest
	err  error
}

func (c *closure) add(p *repb.Digest) digest.Digest {
	d, err := c.fn.FromProto(p)
	if err != nil {
		c.fail(err)
		return d
	}
	c.addDigest(d)
	return d
}

func (c *closure) addDigest(d digest.Digest) {
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
// ways; named both ways, each must be there, since clients read either. Of a Tree alone the Directories need not be
// blobs of their own.
func (c *closure) addDirectory(ctx context.Context, cas cache.CAS, out *repb.OutputDirectory) error {
	var root digest.Digest
	if p := out.GetRootDirectoryDigest(); p != nil {
		if root = c.add(p); c.err != nil {
			return c.err
		}
	}
	p := out.GetTreeDigest()
	if p == nil && root.IsZero() {
		return errors.New("it names no tree")
	}
	if p == nil {
		return c.walk(ctx, cas, root, true)
	}
	d := c.add(p)
	if c.err != nil {
		return c.err
	}
	data, err := cache.ReadBlob(ctx, cas, d, cache.MaxMessage)
	if err != nil {
		return err
	}
	dirs, err := merkle.SplitTree(data, c.fn)
	if err != nil {
		return fmt.Errorf("blob %s is %w", d, err)
	}
	if !root.IsZero() && root != dirs[0].Digest {
		return fmt.Errorf("tree_digest %s and root_directory_digest %s name different trees", d, root)
	}
	return c.walk(ctx, merkle.WithDirectories(cas, dirs), dirs[0].Digest, !root.IsZero())
}

// walk adds the files of a tree and, where asked, its Directories.
func (c *closure) walk(ctx context.Context, cas cache.CAS, root digest.Digest, directories bool) error {
	return merkle.Visit(ctx, cas, root, merkle.DefaultBounds, merkle.Visitor{Directory: func(dir merkle.Directory) error {
		if directories {
			c.addDigest(dir.Digest)
		}
		for _, f := range dir.Files {
			c.addDigest(f)
		}
		return nil
	}})
}
