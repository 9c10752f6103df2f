package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/provenance"
	"github.com/pexpress/pexpress/plugin/build"
	"github.com/pexpress/pexpress/plugin/compose"
	"github.com/pexpress/pexpress/plugin/project"
)

// descriptorRequest is a deploy of what a build tool has made.
type descriptorRequest struct {
	file      string
	from      []string
	locations []string
	to        string
	deployOptions
}

// deployDescriptor deploys by digest: nothing is built.
func (a *app) deployDescriptor(ctx context.Context, r descriptorRequest) error {
	start := time.Now()
	switch {
	case r.file == "":
		return usageError{errors.New("--from is for files of a --descriptor")}
	case len(r.locations) > 0:
		return usageError{errors.New("a descriptor says its location: give no other")}
	case len(r.from) != 0 && len(r.from) != 2:
		return usageError{fmt.Errorf("--from is DEPS_DIR,SOURCE_DIR, not %q", r.from)}
	}
	d, err := compose.ReadDescriptor(r.file)
	if err != nil {
		return composeError(err)
	}
	if err := a.bringTrees(ctx, d, r.from); err != nil {
		return err
	}
	c, err := a.dial(ctx, r.to)
	if err != nil {
		return err
	}
	defer c.Close()
	req := &codeserverpb.DeployRequest{
		Location: d.Location,
		Spec: &codeserverpb.VersionSpec{
			DepsRoot: d.Deps.Root().Proto(), SourceRoot: d.Source.Root().Proto(), Python: d.Python,
			Entry: descriptorEntry(d), Env: d.Run.Env,
		},
		ReadyTimeout: durationpb.New(r.timeout),
		Listen:       first(r.listen, d.Run.Listen),
	}
	if err := a.sign(ctx, req, provenance.Deploy{}); err != nil {
		return err
	}
	stream, err := c.Deploy(ctx, req)
	if err != nil {
		return deployError(err)
	}
	err = a.follow(stream, start, 1, r.timeout)
	if status.Code(err) == codes.NotFound {
		err = unavailableError{err} // of the trees: the codeserver reads another cache
	}
	return withServed(ctx, c, []string{d.Location}, err)
}

// descriptorEntry is what to run, by way of the configuration that it was read from.
func descriptorEntry(d *compose.Descriptor) *codeserverpb.Entry {
	loc := &project.Location{Name: d.Location, Entry: project.Entry{
		Preset: d.Run.Preset, Args: d.Run.Args, WorkingDirectory: d.Run.WorkingDirectory,
	}}
	if r := d.Run.Readiness; r != nil {
		loc.Entry.Readiness = project.Readiness{GRPCService: r.GRPCService, HTTPPath: r.HTTPPath, TCP: r.TCP}
	}
	return entry(loc, d.SourceRoots)
}

// bringTrees makes sure that the cache has both trees.
func (a *app) bringTrees(ctx context.Context, d *compose.Descriptor, from []string) (err error) {
	cas, _, closer, err := a.openCache(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	start := time.Now()
	counter := build.Count(cas)
	for i, t := range []*merkle.Tree{d.Deps, d.Source} {
		dir := ""
		if len(from) > 0 {
			dir = from[i]
		}
		if err := a.bringTree(ctx, counter, t, []string{"deps.pex", "source.pex"}[i], dir); err != nil {
			return err
		}
	}
	blobs, bytes := counter.Shipped()
	a.ui.event("stage", map[string]any{
		"stage": "check trees", "milliseconds": milliseconds(time.Since(start)), "blobs": blobs, "bytes": bytes,
	}, "%-14s %9s  %s new in the cache, %s", "check trees", took(time.Since(start)), count(blobs, "blob"), size(bytes))
	return nil
}

// bringTree stores what the cache lacks of a tree: files from dir, then Directories. A cache that knows REAPI's Tree
// messages only has none of these.
func (a *app) bringTree(ctx context.Context, cas cache.CAS, t *merkle.Tree, name, dir string) error {
	paths := map[digest.Digest]string{}
	var all []digest.Digest
	for path, d := range t.Files() {
		if _, ok := paths[d]; !ok {
			all = append(all, d)
		}
		paths[d] = path
	}
	missing, err := cas.FindMissing(ctx, all)
	if err != nil {
		return err
	}
	if len(missing) > 0 && dir == "" {
		return inputErrorf("%w: the cache %s lacks %s of %s, the first is %s, %s: build with that cache as the remote cache, "+
			"or pass the built trees with --from DEPS_DIR,SOURCE_DIR",
			errLacksFiles, a.cache, count(len(missing), "file"), name, paths[missing[0]], missing[0])
	}
	files := map[digest.Digest]string{}
	for _, d := range missing {
		files[d] = filepath.Join(dir, filepath.FromSlash(paths[d]))
	}
	if err := build.PutFiles(ctx, cas, files); err != nil {
		// Which of the files is found not to be there, another one, or of another kind first is chance.
		if errors.Is(err, digest.ErrMismatch) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.ENOTDIR) {
			return inputErrorf("%s is not the %s that the descriptor is about: %w", dir, name, err)
		}
		return err
	}
	return t.Put(ctx, cas)
}

// errLacksFiles says that a deploy by digest names files that are nowhere to be had.
var errLacksFiles = errors.New("nothing is deployed")
