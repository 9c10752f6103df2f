package conformance

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/action"
)

// sample is an input root.
type sample struct{ root digest.Digest }

// sampleFiles are inputs as [tool.pexpress.output.NAME] gives them to a builder.
var sampleFiles = map[string]string{
	"inputs/css/site.css": "body { color: black; }\n\n/* a comment */\n",
	"inputs/js/app.js":    "const a = 1;\n// a comment\nconsole.log(a);\n",
	"inputs/js/zz.js":     "console.log('zz');\n",
	"inputs/notes.txt":    "Grüße, 世界\n",
}

// samples stores two input roots that differ: the builder's first and second.
func samples(ctx context.Context, cas cache.CAS, dir string) (two [2]sample, err error) {
	files := sampleFiles
	if dir != "" {
		if files, err = readFiles(dir); err != nil {
			return two, err
		}
	}
	for i := range two {
		var b merkle.Builder
		for path, content := range files {
			if i == 1 && dir == "" {
				content += "/* second */\n"
			}
			d, err := cache.PutBlob(ctx, cas, []byte(content))
			if err == nil {
				err = b.File(path, d)
			}
			if err != nil {
				return two, err
			}
		}
		tree, err := b.Build()
		if err == nil {
			err = tree.Put(ctx, cas)
		}
		if err != nil {
			return two, err
		}
		two[i].root = tree.Root()
	}
	return two, nil
}

func readFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", path)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		files[filepath.ToSlash(name)] = string(b)
		return err
	})
	return files, err
}

// action stores an Action of the builder's.
func (s *suite) action(ctx context.Context, kind, version, output string, root digest.Digest) (digest.Digest, error) {
	platform := &repb.Platform{Properties: []*repb.Platform_Property{{Name: action.OutputVersionProperty, Value: version}}}
	command, err := cache.PutMessage(ctx, s.cas, &repb.Command{
		Arguments:             []string{"pexpress", "builder", kind},
		OutputPaths:           []string{output},
		OutputDirectoryFormat: repb.Command_TREE_AND_DIRECTORY,
		//lint:ignore SA1019 REAPI: servers older than 2.2 look for it here only
		Platform: platform,
	})
	if err != nil {
		return digest.Digest{}, err
	}
	return cache.PutMessage(ctx, s.cas, &repb.Action{
		CommandDigest: command.Proto(), InputRootDigest: root.Proto(), Platform: platform,
	})
}

// outputPath is what the sample's output is called.
func (s *suite) outputPath() string {
	for _, k := range []string{action.KindDeps, action.KindSource} {
		if s.kind() == k {
			return k + ".pex"
		}
	}
	return s.kind()
}

// sampleAction stores the Action that builds a sample.
func (s *suite) sampleAction(ctx context.Context, i int) (digest.Digest, error) {
	return s.action(ctx, s.kind(), s.about.OutputVersion, s.outputPath(), s.samples[i].root)
}

func (s *suite) kind() string {
	if s.opts.Kind != "" || len(s.about.Kinds) == 0 {
		return s.opts.Kind
	}
	return s.about.Kinds[0]
}

// outputRoot returns the root of a result's one tree; a result without a tree is told by its file.
func outputRoot(r *repb.ActionResult) (digest.Digest, error) {
	for _, d := range r.GetOutputDirectories() {
		return digest.FromProto(d.GetRootDirectoryDigest())
	}
	for _, f := range r.GetOutputFiles() {
		return digest.FromProto(f.GetDigest())
	}
	return digest.Digest{}, fmt.Errorf("the result has no output")
}
