package codeserver

import (
	"context"
	"errors"
	"fmt"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

// exchange tells other hosts, through the cache, what versions import when they start. The entry of a key is the
// ActionResult of an Action that nobody runs:
//
//	Command{arguments: ["pexpress-imports", "v1", KEY], output_paths: ["imports.json"]}
//	Action{command_digest, input_root_digest: the empty Directory}
//
// Whoever may write ActionResults may write one; see zygote.ParseLearned for what is believed of it.
type exchange struct {
	open func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error)
}

// importsFile is where the list is among the outputs.
const importsFile = "imports.json"

func importsAction(key string) (action digest.Digest, blobs []cache.Blob, err error) {
	c := &repb.Command{Arguments: []string{"pexpress-imports", "v1", key}, OutputPaths: []string{importsFile}}
	command, cd, err := digest.Marshal(c)
	if err != nil {
		return digest.Digest{}, nil, err
	}
	empty := digest.FromBytes(nil)
	a := &repb.Action{CommandDigest: cd.Proto(), InputRootDigest: empty.Proto()}
	act, ad, err := digest.Marshal(a)
	return ad, []cache.Blob{{Digest: cd, Data: command}, {Digest: ad, Data: act}, {Digest: empty}}, err
}

// Fetch implements zygote.Exchange.
func (e *exchange) Fetch(ctx context.Context, key string) ([]byte, error) {
	action, _, err := importsAction(key)
	if err != nil {
		return nil, err
	}
	cas, results, closer, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	ar, err := results.GetActionResult(ctx, action)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, f := range ar.GetOutputFiles() {
		if f.GetPath() != importsFile {
			continue
		}
		d, err := digest.FromProto(f.GetDigest())
		if err != nil {
			return nil, err
		}
		b, err := cache.ReadBlob(ctx, cas, d, zygote.MaxLearned)
		if errors.Is(err, cache.ErrNotFound) {
			return nil, nil
		}
		return b, err
	}
	return nil, fmt.Errorf("its entry in the ActionCache has no %s", importsFile)
}

// Publish implements zygote.Exchange.
func (e *exchange) Publish(ctx context.Context, key string, learned []byte) error {
	action, blobs, err := importsAction(key)
	if err != nil {
		return err
	}
	cas, results, closer, err := e.open(ctx)
	if err != nil {
		return err
	}
	defer closer.Close()
	d := digest.FromBytes(learned)
	if err := cache.PutAll(ctx, cas, append(blobs, cache.Blob{Digest: d, Data: learned})); err != nil {
		return err
	}
	return results.UpdateActionResult(ctx, action, &repb.ActionResult{
		OutputFiles: []*repb.OutputFile{{Path: importsFile, Digest: d.Proto()}},
	})
}
