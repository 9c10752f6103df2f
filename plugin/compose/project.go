package compose

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"github.com/pexpress/pexpress/plugin/project"
)

// Entry is one name of a source tree: a file and where its content lies, or a symlink and its target.
type Entry struct{ Name, Value string }

// ProjectRequest says which project to read and where its files are.
type ProjectRequest struct {
	// Dir is the project's directory. With Files it is a slash-separated path below which they stand; with Root it is
	// relative to that.
	Dir string
	// Root is a directory that holds the project and the local projects that it needs, "" if that is Dir itself.
	Root string
	// Follow reads absolute symlinks through, which sandboxes stage files with.
	Follow bool
	// Files and Links are the project's, and its local projects', if they are given one by one.
	Files, Links []Entry
	// Location is the one to read; it may be empty if there is but one.
	Location string
}

// opened is a project to read, and the location that it is read for.
type opened struct {
	project  *project.Project
	location *project.Location
	staging  *staging // nil if the project is read where it lies
}

func (o *opened) close() error {
	if o.staging == nil {
		return nil
	}
	return o.staging.remove()
}

// open loads the project, staged if it has to be.
func (r *ProjectRequest) open() (_ *opened, err error) {
	o := &opened{}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	dir := filepath.Join(r.Root, r.Dir)
	if len(r.Files)+len(r.Links) > 0 || r.Follow {
		if o.staging, err = newStaging(); err != nil {
			return nil, err
		}
		if err = r.stage(o.staging); err != nil {
			return nil, err
		}
		dir = o.staging.dir
		if r.Root != "" || !r.Follow {
			dir = filepath.Join(dir, filepath.FromSlash(r.Dir))
		}
		if err = makeLocations(dir); err != nil {
			return nil, err
		}
	}
	if o.project, err = project.Load(dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if o.location, err = o.project.Location(r.Location); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	return o, nil
}

func (r *ProjectRequest) stage(s *staging) error {
	if r.Follow {
		top := r.Root
		if top == "" {
			top = r.Dir
		}
		if err := s.tree(top); err != nil {
			return err
		}
	} else if clean := path.Clean(r.Dir); clean != "." && !filepath.IsLocal(clean) {
		return fmt.Errorf("%w: with files given one by one, the project's directory is a path among them, not %q", ErrInput, r.Dir)
	}
	for _, f := range r.Files {
		if err := s.file(f.Name, f.Value); err != nil {
			return err
		}
	}
	for _, l := range r.Links {
		if err := s.link(l.Name, l.Value); err != nil {
			return err
		}
	}
	return nil
}

// content is what goes into a source tree.
type content struct {
	files, links []Entry
	generated    map[string][]byte
	roots        []string
	warnings     []string
}

// sources lists what package project puts into the location's source.pex.
func (o *opened) sources(ctx context.Context) (*content, error) {
	src, err := o.project.Sources(ctx, o.location)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	c := &content{generated: src.Generated, roots: src.Roots, warnings: append(slices.Clone(o.project.Warnings), src.Warnings...)}
	for _, f := range src.Files {
		c.files = append(c.files, Entry{f.Path, o.staging.real(f.Abs)})
	}
	for name, target := range src.Symlinks {
		c.links = append(c.links, Entry{name, target})
	}
	return c, nil
}
