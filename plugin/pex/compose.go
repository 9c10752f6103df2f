package pex

import (
	"context"
	"errors"
	"fmt"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin"
)

// Names at the root of a PEX.
const (
	infoFile     = "PEX-INFO"
	mainFile     = "__main__.py"
	importFile   = "__pex__/__init__.py"
	linkFile     = "pex"
	bootstrapDir = ".bootstrap"
	depsDir      = ".deps"
)

// composer collects the files of one PEX.
type composer struct {
	*inputs
	tree  merkle.Builder
	blobs map[digest.Digest][]byte
}

// file puts a file that the builder makes itself.
func (c *composer) file(path string, content []byte) error {
	d := digest.FromBytes(content)
	c.blobs[d] = content
	return c.tree.File(path, d)
}

// deps composes deps.pex: pex's packed layout, with the wheels as they were published.
func (c *composer) deps() error {
	info := newInfo(c.bootstrap.facts)
	info.DepsAreWheelFiles = true
	for _, w := range c.wheels {
		requirement, err := requirementOf(w.Name)
		if err != nil {
			return err
		}
		info.Distributions[w.Name] = w.Digest.Hash()
		info.Requirements = append(info.Requirements, requirement)
		if err := c.tree.File(depsDir+"/"+w.Name, w.Digest); err != nil {
			return err
		}
	}
	content, err := info.seal()
	if err != nil {
		return err
	}
	if err := c.file(infoFile, content); err != nil {
		return err
	}
	if err := c.tree.File(bootstrapDir, c.zipped); err != nil {
		return err
	}
	return c.entry(bootCall("'" + info.PexHash + "'"))
}

// source composes source.pex: pex's loose layout, one file a blob, so that an edit ships that file. Of what the builder
// adds only PEX-INFO depends on the sources: __main__.py reads pex_hash from there.
func (c *composer) source() error {
	var sourceID digest.Digest
	if c.inputs.source != nil {
		sourceID = c.inputs.source.Root()
		if err := c.addSource(c.inputs.source); err != nil {
			return err
		}
	}
	info := newInfo(c.bootstrap.facts)
	info.CodeHash = sha1Hex([]byte(sourceID.String()))
	if len(c.spec.SourceRoots) > 0 {
		info.BuildProperties[sourceRootsProperty] = c.spec.SourceRoots
	}
	content, err := info.seal()
	if err != nil {
		return err
	}
	if err := c.file(infoFile, content); err != nil {
		return err
	}
	if err := c.tree.Graft(bootstrapDir, c.runtime); err != nil {
		return err
	}
	return c.entry(looseBootCall)
}

// addSource puts the sources at the top of the PEX.
func (c *composer) addSource(source *merkle.Tree) error {
	top, _ := source.Directory(source.Root())
	for _, f := range top.GetFiles() {
		d, err := digest.FromProto(f.GetDigest())
		if err := errors.Join(err, checkSourceName(f.GetName()), c.tree.File(f.GetName(), d)); err != nil {
			return err
		}
	}
	for _, l := range top.GetSymlinks() {
		if err := errors.Join(checkSourceName(l.GetName()), c.tree.Symlink(l.GetName(), l.GetTarget())); err != nil {
			return err
		}
	}
	for _, dir := range top.GetDirectories() {
		sub, _ := source.Sub(dir.GetName())
		if err := errors.Join(checkSourceName(dir.GetName()), c.tree.Graft(dir.GetName(), sub)); err != nil {
			return err
		}
	}
	return nil
}

// entry adds what starts the PEX: __main__.py, the import hook that is the same without its shebang, and the link that
// pex makes for people.
func (c *composer) entry(call string) error {
	main, hook := entryFiles(c.bootstrap.boot, c.spec.Python, call)
	if err := c.file(mainFile, main); err != nil {
		return err
	}
	if err := c.file(importFile, hook); err != nil {
		return err
	}
	return c.tree.Symlink(linkFile, mainFile)
}

// checkSourceName refuses sources that stand where a PEX has its own files.
func checkSourceName(top string) error {
	switch top {
	case infoFile, mainFile, "__pex__", linkFile, bootstrapDir, depsDir:
		return fmt.Errorf("%w: the project has %s at its top, where a PEX has its own: rename it, or leave it out with exclude = [\"/%s\"]",
			plugin.ErrInvalidAction, top, top)
	}
	return nil
}

var notInNames = lazy.Regexp(`[-_.]+`)

// requirementOf returns the requirement that pins a wheel's version, from its file name (PEP 427): pex activates what
// requirements name, and nothing else.
func requirementOf(wheel string) (string, error) {
	parts := strings.Split(strings.TrimSuffix(wheel, ".whl"), "-")
	if len(parts) != 5 && len(parts) != 6 {
		return "", fmt.Errorf("%w: %q is not a wheel's file name, NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl",
			plugin.ErrInvalidAction, wheel)
	}
	name := strings.ToLower(notInNames().ReplaceAllString(parts[0], "-"))
	return name + "==" + strings.ReplaceAll(parts[1], "_", "-"), nil
}

// store puts what the builder made into the CAS and returns the result that names it.
func (c *composer) store(ctx context.Context, cas cache.CAS) (*repb.ActionResult, error) {
	t, err := c.tree.Build()
	if err != nil {
		return nil, err
	}
	data, td, err := digest.Marshal(t.Proto())
	if err != nil {
		return nil, err
	}
	c.blobs[td] = data
	for d, b := range t.Blobs() {
		// Most Directories are those of the inputs, and there.
		if _, input := c.root.Directory(d); !input {
			c.blobs[d] = b
		}
	}
	blobs := make([]cache.Blob, 0, len(c.blobs))
	for d, b := range c.blobs {
		blobs = append(blobs, cache.Blob{Digest: d, Data: b})
	}
	if err := cache.PutAll(ctx, cas, blobs); err != nil {
		return nil, fmt.Errorf("store %s: %w", c.output, err)
	}
	return &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{
		Path: c.output, TreeDigest: td.Proto(), RootDirectoryDigest: t.Root().Proto(),
	}}}, nil
}
