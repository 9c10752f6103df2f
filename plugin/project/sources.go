package project

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// outsideDir is where local projects from outside the location's directory lie in the source tree.
const outsideDir = "_workspace"

// Sources is what goes into a location's source.pex: the layout of its directory, so that the code behaves as it does
// in its checkout.
type Sources struct {
	Files []SourceFile // sorted by path
	// Symlinks are the targets of symbolic links by path in the tree; each is relative and stays inside.
	Symlinks map[string]string
	// Generated are files that are in no checkout, by path: the *.dist-info of the project and of its local projects.
	Generated map[string][]byte
	// Roots are the directories to import from, in order, relative to the tree; the tree's root comes after them.
	Roots []string
	// Dirs are the directories that were listed, absolute and in no order: where a change can change Files.
	Dirs     []string
	Warnings []string
}

// A SourceFile is one file of the source tree.
type SourceFile struct {
	Path string // in the tree, slash-separated
	Abs  string // on this machine
}

// Sources lists what goes into the location's source.pex. It reads the packaging files and lists directories; it
// opens no other file.
func (p *Project) Sources(ctx context.Context, loc *Location) (*Sources, error) {
	g, err := p.graph(loc)
	if err != nil {
		return nil, err
	}
	s := &Sources{Symlinks: map[string]string{}, Generated: map[string][]byte{}}
	if err := s.add(ctx, p, loc.Dir, ""); err != nil {
		return nil, err
	}
	roots := loc.roots
	if roots == nil {
		roots = g.main.sourceRoots()
	}
	roots = slices.Clone(roots)
	s.describe(g.main)
	taken := holds(s.Files, outsideDir)
	for _, l := range g.locals {
		prefix := outsideDir + "/" + l.Name + "/"
		if rel, err := filepath.Rel(loc.Dir, l.Dir); err == nil && filepath.IsLocal(rel) {
			prefix = filepath.ToSlash(rel) + "/"
		} else if taken {
			return nil, fmt.Errorf("%s has a directory %s, which source.pex needs for %s; rename it", loc.Dir, outsideDir, l.Name)
		} else if err := s.add(ctx, p, l.Dir, prefix); err != nil {
			return nil, err
		}
		roots = append(roots, l.about.rootsBelow(prefix)...)
		s.describe(l.about)
	}
	for _, root := range roots {
		if holds(s.Files, root) && root != "." && !slices.Contains(s.Roots, root) {
			s.Roots = append(s.Roots, root)
		}
	}
	s.skipPresent()
	s.checkEntry(loc)
	return s, nil
}

// add takes in the files of one directory.
func (s *Sources) add(ctx context.Context, p *Project, dir, prefix string) error {
	f, err := walk(ctx, dir, gitTop(dir, p.Dir), prefix, p.filter)
	if err != nil {
		return err
	}
	if err := resolveLinks(dir, prefix, f, s.Symlinks); err != nil {
		return err
	}
	s.Files = append(s.Files, f.files...)
	s.Dirs = append(s.Dirs, f.dirs...)
	s.Warnings = append(s.Warnings, f.warnings...)
	if prefix != "" { // "_workspace/…" may sort before what is there
		slices.SortFunc(s.Files, func(a, b SourceFile) int { return strings.Compare(a.Path, b.Path) })
	}
	return nil
}

// rootsBelow returns the directories to import a local project from.
func (d *description) rootsBelow(prefix string) []string {
	var roots []string
	for _, root := range d.sourceRoots() {
		roots = append(roots, prefix+root)
	}
	if len(roots) == 0 || d.flat {
		roots = append(roots, strings.TrimSuffix(prefix, "/"))
	}
	return roots
}

// describe takes in the metadata of one project.
func (s *Sources) describe(d *description) {
	for name, content := range d.distInfo() {
		s.Generated[name] = content
	}
	s.Warnings = append(s.Warnings, d.Warnings...)
}

// skipPresent drops generated metadata that the checkout has itself.
func (s *Sources) skipPresent() {
	for name := range s.Generated {
		if holds(s.Files, name) {
			delete(s.Generated, name)
		}
	}
}

// checkEntry warns when what the location runs is not in the sources. It may come from the dependencies, and if not,
// the traceback of the start says more; but that comes later.
func (s *Sources) checkEntry(loc *Location) {
	e := loc.Entry
	what, module := "module", ""
	switch {
	case len(e.Args) == 0:
		return
	case e.Preset == "asgi" || e.Preset == "wsgi":
		module, _, _ = strings.Cut(e.Args[0], ":")
	case e.Preset == "module":
		module = e.Args[0]
	case e.Preset == "dagster" && e.Args[0] == "-f":
		what = "file"
	case e.Preset == "dagster":
		module = e.Args[1]
	default:
		return
	}
	if what == "file" {
		file := path.Join(e.WorkingDirectory, filepath.ToSlash(e.Args[1]))
		if !holds(s.Files, file) {
			s.Warnings = append(s.Warnings, fmt.Sprintf("location %s runs the file %s, which is not in the sources", loc.Name, file))
		}
		return
	}
	search := append(slices.Clone(s.Roots), ".", path.Clean(e.WorkingDirectory))
	for i, arg := range e.Args {
		if arg == "-d" && i+1 < len(e.Args) {
			search = append(search, e.Args[i+1])
		}
	}
	file := strings.ReplaceAll(module, ".", "/")
	for _, root := range search {
		if at := path.Join(root, file); holds(s.Files, at) || holds(s.Files, at+".py") {
			return
		}
	}
	s.Warnings = append(s.Warnings, fmt.Sprintf(
		"location %s runs the module %s, which is not in the sources; it must come from the dependencies or the standard library", loc.Name, module))
}
