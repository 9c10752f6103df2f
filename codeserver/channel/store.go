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
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// ErrUnpublished is wrapped by the error about a channel that a cache has no pointer of.
var ErrUnpublished = errors.New("the channel is not published in this cache")

// pointerFile is where the pointer is among the outputs.
const pointerFile = "pointer.json"

// The ActionCache is the one place of a REAPI cache whose content may change. A channel has the ActionResult of an Action
// that nobody runs:
//
//	Command{arguments: ["pexpress-channel", "v1", NAME], output_paths: ["pointer.json"]}
//	Action{command_digest, input_root_digest: the empty Directory}
//
// Both are in the CAS, so that the entry is one like any other to whatever looks at it.
func action(name string) (command, act *blob, err error) {
	c := &repb.Command{Arguments: []string{"pexpress-channel", "v1", name}, OutputPaths: []string{pointerFile}}
	data, cd, err := digest.Marshal(c)
	if err != nil {
		return nil, nil, err
	}
	command = &blob{Digest: cd, Data: data}
	a := &repb.Action{CommandDigest: cd.Proto(), InputRootDigest: digest.FromBytes(nil).Proto()}
	data, ad, err := digest.Marshal(a)
	return command, &blob{Digest: ad, Data: data}, err
}

type blob = cache.Blob

// Key returns the digest under which an ActionCache has a channel.
func Key(name string) (digest.Digest, error) {
	_, a, err := action(name)
	if err != nil {
		return digest.Digest{}, err
	}
	return a.Digest, nil
}

// Publish stores the pointer in its envelope. The ActionResult names all trees of its versions beside it: a cache keeps them
// as long as the pointer, and refuses one whose trees it lacks.
func Publish(ctx context.Context, cas cache.CAS, results cache.ActionCache, p *Pointer, envelope []byte) error {
	if int64(len(envelope)) > maxPointer {
		return fmt.Errorf("channel %s: its pointer has %d bytes, more than %d", p.Channel, len(envelope), maxPointer)
	}
	command, act, err := action(p.Channel)
	if err != nil {
		return err
	}
	d := digest.FromBytes(envelope)
	ar := &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: pointerFile, Digest: d.Proto()}}}
	blobs := []cache.Blob{*command, *act, {Digest: d, Data: envelope}, {Digest: digest.FromBytes(nil)}}
	for _, name := range slices.Sorted(maps.Keys(p.Locations)) {
		trees := trees(p.Locations[name].Spec)
		for _, tree := range slices.Sorted(maps.Keys(trees)) {
			out, b, err := outputDirectory(ctx, cas, name+"/"+tree, trees[tree])
			if err != nil {
				return fmt.Errorf("channel %s: %s of location %s: %w", p.Channel, tree, name, err)
			}
			ar.OutputDirectories, blobs = append(ar.OutputDirectories, out), append(blobs, *b)
		}
	}
	if err := cache.PutAll(ctx, cas, blobs); err != nil {
		return fmt.Errorf("publish channel %s: %w", p.Channel, err)
	}
	if err := results.UpdateActionResult(ctx, act.Digest, ar); err != nil {
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

func outputDirectory(ctx context.Context, cas cache.CAS, path string, root *repb.Digest) (*repb.OutputDirectory, *blob, error) {
	d, err := digest.FromProto(root)
	if err != nil {
		return nil, nil, err
	}
	t, err := merkle.Load(ctx, cas, d)
	if err != nil {
		return nil, nil, err
	}
	data, td, err := digest.Marshal(t.Proto())
	if err != nil {
		return nil, nil, err
	}
	return &repb.OutputDirectory{Path: path, TreeDigest: td.Proto(), RootDirectoryDigest: root}, &blob{Digest: td, Data: data}, nil
}

// Fetch returns the envelope that a cache has for a channel. Nothing of it is believed yet.
func Fetch(ctx context.Context, cas cache.CAS, results cache.ActionCache, name string) ([]byte, error) {
	key, err := Key(name)
	if err != nil {
		return nil, err
	}
	ar, err := results.GetActionResult(ctx, key)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnpublished, name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("look up channel %s: %w", name, err)
	}
	for _, f := range ar.GetOutputFiles() {
		if f.GetPath() != pointerFile {
			continue
		}
		d, err := digest.FromProto(f.GetDigest())
		if err != nil {
			return nil, fmt.Errorf("%w: channel %s: %w", ErrRefused, name, err)
		}
		b, err := cache.ReadBlob(ctx, cas, d, maxPointer)
		if err != nil {
			return nil, fmt.Errorf("read the pointer of channel %s: %w", name, err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("%w: channel %s: its entry in the ActionCache has no %s", ErrRefused, name, pointerFile)
}
