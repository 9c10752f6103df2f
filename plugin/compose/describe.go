package compose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/action"
	"github.com/pexpress/pexpress/plugin/pex"
)

// Descriptor is a deployment by digests: what `pexpress deploy --descriptor` needs beside a cache that has the files.
type Descriptor struct {
	Location, Python, Platform string
	Deps, Source               *merkle.Tree
	SourceRoots                []string
	Run                        Run
}

type descriptorJSON struct {
	Version  int        `json:"version"`
	Location string     `json:"location"`
	Python   string     `json:"python"`
	Platform string     `json:"platform,omitempty"`
	Deps     treeJSON   `json:"deps"`
	Source   sourceJSON `json:"source"`
	Run      Run        `json:"run"`
}

type sourceJSON struct {
	treeJSON
	Roots []string `json:"roots,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (d Descriptor) MarshalJSON() ([]byte, error) {
	deps, err := encodeTree(d.Deps)
	if err != nil {
		return nil, err
	}
	source, err := encodeTree(d.Source)
	if err != nil {
		return nil, err
	}
	return json.Marshal(descriptorJSON{
		Version: SummaryVersion, Location: d.Location, Python: d.Python, Platform: d.Platform,
		Deps: deps, Source: sourceJSON{source, d.SourceRoots}, Run: d.Run,
	})
}

// ReadDescriptor reads and checks what Describe has made.
func ReadDescriptor(path string) (*Descriptor, error) {
	var j descriptorJSON
	if err := readJSON(path, &j); err != nil {
		return nil, err
	}
	if err := checkVersion(path, j.Version); err != nil {
		return nil, err
	}
	if j.Location == "" || j.Python == "" || j.Run.Preset == "" {
		return nil, fmt.Errorf("%w: %s lacks a location, a Python version or what to run", ErrInput, path)
	}
	deps, err := j.Deps.decode()
	if err != nil {
		return nil, fmt.Errorf("%s: deps: %w", path, err)
	}
	source, err := j.Source.decode()
	if err != nil {
		return nil, fmt.Errorf("%s: source: %w", path, err)
	}
	return &Descriptor{j.Location, j.Python, j.Platform, deps, source, j.Source.Roots, j.Run}, nil
}

// DescribeRequest says what to describe. Deps and Source are each a tree's directory or the file of its summary.
type DescribeRequest struct {
	Deps, Source string
	// Name is the location's; the project's own if empty.
	Name string
	// Project says what to run; nil leaves it to what the summary of the source says.
	Project *ProjectRequest
}

// Describe makes the descriptor of a deployment.
func Describe(ctx context.Context, r DescribeRequest) (*Descriptor, error) {
	deps, err := summarize(ctx, r.Deps, action.KindDeps)
	if err != nil {
		return nil, err
	}
	source, err := summarize(ctx, r.Source, action.KindSource)
	if err != nil {
		return nil, err
	}
	if deps.Python != source.Python || deps.Platform != source.Platform && deps.Platform != "" && source.Platform != "" {
		return nil, fmt.Errorf("%w: %s is for Python %s %s and %s for Python %s %s: compose both for one target",
			ErrInput, r.Deps, deps.Python, deps.Platform, r.Source, source.Python, source.Platform)
	}
	run := source.Run
	if r.Project != nil {
		o, err := r.Project.open()
		if err != nil {
			return nil, err
		}
		run = runOf(o.location)
		if err := errors.Join(inputError(o.location.CheckEntry()), o.close()); err != nil {
			return nil, err
		}
	}
	if run == nil {
		return nil, fmt.Errorf("%w: nothing says what to run: give the project whose configuration does", ErrInput)
	}
	d := &Descriptor{
		Location: r.Name, Python: deps.Python, Platform: deps.Platform,
		Deps: deps.Tree, Source: source.Tree, SourceRoots: source.SourceRoots, Run: *run,
	}
	if d.Location == "" {
		d.Location = run.Location
	}
	return d, nil
}

func inputError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrInput, err)
}

// summarize reads a summary, or makes one of a tree in a directory.
func summarize(ctx context.Context, path, kind string) (*Summary, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	s := &Summary{Kind: kind}
	if !info.IsDir() {
		s, err = ReadSummary(path)
	} else if s.Tree, err = ReadTree(ctx, path, true); err == nil {
		err = s.readPEX(path)
	}
	if err == nil && s.Kind != kind {
		err = fmt.Errorf("%w: %s is of a %s.pex, not of a %s.pex", ErrInput, path, s.Kind, kind)
	}
	return s, err
}

var shebang = lazy.Regexp(`^#!/usr/bin/env python(3\.[0-9]+)\n`)

// readPEX finds in a PEX what a summary says of it; the platform stands nowhere in it.
func (s *Summary) readPEX(dir string) error {
	main, err := os.ReadFile(filepath.Join(dir, "__main__.py"))
	if err != nil {
		return fmt.Errorf("%w: %s is not a PEX: %w", ErrInput, dir, err)
	}
	m := shebang().FindSubmatch(main)
	if m == nil {
		return fmt.Errorf("%w: %s/__main__.py does not say which Python it is for: pexpress has not made it", ErrInput, dir)
	}
	s.Python = string(m[1])
	var info pex.Info
	if err := readJSON(filepath.Join(dir, "PEX-INFO"), &info); err != nil {
		return err
	}
	if roots, ok := info.BuildProperties["pexpress_source_roots"].([]any); ok {
		for _, r := range roots {
			if root, ok := r.(string); ok {
				s.SourceRoots = append(s.SourceRoots, root)
			}
		}
	}
	kind := map[bool]string{true: action.KindDeps, false: action.KindSource}[info.DepsAreWheelFiles]
	s.Kind = kind
	return nil
}
