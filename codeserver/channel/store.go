package channel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/cache/named"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// ErrUnpublished is wrapped by the error about a channel that a cache has no pointer of.
var ErrUnpublished = errors.New("the channel is not published in this cache")

// pointerOf is the file of a channel's pointer, in its envelope.
func pointerOf(name string) (*named.File, error) {
	return named.New("pointer.json", maxPointer, "pexpress-channel", "v1", name)
}

// Publish stores the pointer in its envelope. Its entry names all trees of its versions beside it: a cache keeps them as long
// as the pointer, and refuses one whose trees it lacks.
func Publish(ctx context.Context, cas cache.CAS, results cache.ActionCache, p *Pointer, envelope []byte) error {
	f, err := pointerOf(p.Channel)
	if err != nil {
		return err
	}
	var out []*repb.OutputDirectory
	var blobs []cache.Blob
	for _, name := range slices.Sorted(maps.Keys(p.Locations)) {
		trees := trees(p.Locations[name].Spec)
		for _, tree := range slices.Sorted(maps.Keys(trees)) {
			dir, b, err := outputDirectory(ctx, cas, name+"/"+tree, trees[tree])
			if err != nil {
				return fmt.Errorf("channel %s: %s of location %s: %w", p.Channel, tree, name, err)
			}
			out, blobs = append(out, dir), append(blobs, b)
		}
	}
	if err := f.Put(ctx, cas, results, envelope, out, blobs...); err != nil {
		return fmt.Errorf("publish channel %s: %w", p.Channel, err)
	}
	return nil
}

// trees are the trees of a version by name.
func trees(spec *codeserverpb.VersionSpec) map[string]*repb.Digest {
	all := map[string]*repb.Digest{"deps.pex": spec.GetDepsRoot(), "source.pex": spec.GetSourceRoot()}
	for name, root := range spec.GetOutputs() {
		all["output-"+name] = root
	}
	return all
}

func outputDirectory(ctx context.Context, cas cache.CAS, path string, root *repb.Digest) (*repb.OutputDirectory, cache.Blob, error) {
	d, err := digest.FromProto(root)
	if err != nil {
		return nil, cache.Blob{}, err
	}
	t, err := merkle.Load(ctx, cas, d)
	if err != nil {
		return nil, cache.Blob{}, err
	}
	data, td, err := digest.Marshal(t.Proto())
	if err != nil {
		return nil, cache.Blob{}, err
	}
	return &repb.OutputDirectory{Path: path, TreeDigest: td.Proto(), RootDirectoryDigest: root}, cache.Blob{Digest: td, Data: data}, nil
}

// Fetch returns the envelope that a cache has for a channel. Nothing of it is believed yet.
func Fetch(ctx context.Context, cas cache.CAS, results cache.ActionCache, name string) ([]byte, error) {
	f, err := pointerOf(name)
	if err != nil {
		return nil, err
	}
	envelope, err := f.Get(ctx, cas, results)
	switch {
	case errors.Is(err, named.ErrNone):
		return nil, fmt.Errorf("%w: %s: %w", ErrUnpublished, name, err)
	case errors.Is(err, named.ErrEntry):
		return nil, fmt.Errorf("%w: channel %s: %w", ErrRefused, name, err)
	case err != nil:
		return nil, fmt.Errorf("read the pointer of channel %s: %w", name, err)
	}
	return envelope, nil
}
