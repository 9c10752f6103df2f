// Package named keeps small files under names in a REAPI cache.
//
// The ActionCache is the one place of such a cache whose content may change. A name's file is the output of an Action that
// nobody runs:
//
//	Command{arguments: NAME, output_paths: [PATH]}
//	Action{command_digest, input_root_digest: the empty Directory}
//
// Both are in the CAS, so that the entry is one like any other to whatever looks at it. Whoever may write ActionResults may
// write one: what is read is to be believed for other reasons.
package named

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

var (
	// ErrNone says that the cache has no entry of a name.
	ErrNone = errors.New("there is no entry of that name in the ActionCache")
	// ErrEntry says that the entry of a name does not have its file.
	ErrEntry = errors.New("its entry in the ActionCache is not of such a file")
)

// File is a file that has a name.
type File struct {
	path   string
	max    int64
	action digest.Digest
	blobs  []cache.Blob // Command, Action and empty Directory
}

// New returns the file of at most max bytes that has a name, one or more words, and that its entry calls path.
func New(path string, max int64, name ...string) (*File, error) {
	command, cd, err := digest.Marshal(&repb.Command{Arguments: name, OutputPaths: []string{path}})
	if err != nil {
		return nil, err
	}
	empty := digest.FromBytes(nil)
	action, ad, err := digest.Marshal(&repb.Action{CommandDigest: cd.Proto(), InputRootDigest: empty.Proto()})
	if err != nil {
		return nil, err
	}
	return &File{path, max, ad, []cache.Blob{{Digest: cd, Data: command}, {Digest: ad, Data: action}, {Digest: empty}}}, nil
}

// Key returns the digest under which the ActionCache has it.
func (f *File) Key() digest.Digest { return f.action }

// Get returns the content. The error is cache.ErrNotFound if the cache does not have it: also ErrNone if there is no entry,
// and else the content has been lost.
func (f *File) Get(ctx context.Context, cas cache.CAS, results cache.ActionCache) ([]byte, error) {
	ar, err := results.GetActionResult(ctx, f.action)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	if err != nil {
		return nil, err
	}
	for _, out := range ar.GetOutputFiles() {
		if out.GetPath() != f.path {
			continue
		}
		d, err := digest.FromProto(out.GetDigest())
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrEntry, f.path, err)
		}
		return cache.ReadBlob(ctx, cas, d, f.max)
	}
	return nil, fmt.Errorf("%w: it has no %s", ErrEntry, f.path)
}

// Put stores the content. The entry names trees beside it, whose Tree messages are blobs of also: a cache keeps them as long
// as the entry, and refuses it if it lacks them.
func (f *File) Put(ctx context.Context, cas cache.CAS, results cache.ActionCache, content []byte, trees []*repb.OutputDirectory, also ...cache.Blob) error {
	if int64(len(content)) > f.max {
		return fmt.Errorf("%s has %d bytes, more than %d", f.path, len(content), f.max)
	}
	d := digest.FromBytes(content)
	blobs := append(append([]cache.Blob{{Digest: d, Data: content}}, f.blobs...), also...)
	if err := cache.PutAll(ctx, cas, blobs); err != nil {
		return err
	}
	return results.UpdateActionResult(ctx, f.action, &repb.ActionResult{
		OutputFiles: []*repb.OutputFile{{Path: f.path, Digest: d.Proto()}}, OutputDirectories: trees,
	})
}
