package project

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/plugin/lock"
)

// A Local is a project that a location needs from a directory: a path dependency or a member of the same workspace.
type Local struct {
	Name string // normalized; the directory's name if it has none
	Dir  string // absolute

	about  *description
	extras []string
}

// A graph is a location's project and the local projects that it needs.
type graph struct {
	main     *description
	locals   []Local
	declared []declared

	workspaces map[string]*workspace
}

// declared is one requirement that must come from the lock, and the file that has it.
type declared struct {
	requirement
	where string
}

func (p *Project) graph(loc *Location) (*graph, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g, ok := p.graphs[loc.Name]; ok {
		return g, nil
	}
	g, err := loadGraph(loc)
	if err == nil {
		p.graphs[loc.Name] = g
	}
	return g, err
}

func loadGraph(loc *Location) (*graph, error) {
	main, err := describe(loc.Dir)
	if err != nil {
		return nil, err
	}
	for _, extra := range loc.Extras {
		if _, ok := main.Extras[lock.NormalizeName(extra)]; !ok && main.dependenciesKnown() {
			return nil, fmt.Errorf("%s: the configuration asks for the extra %q, which pyproject.toml does not have", loc.Dir, extra)
		}
	}
	g := &graph{main: main, workspaces: map[string]*workspace{}}
	reqs := main.selected(loc.Extras)
	for _, group := range loc.Groups {
		members, ok := main.Groups[lock.NormalizeName(group)]
		if !ok {
			return nil, fmt.Errorf("%s: the configuration asks for the group %q, which pyproject.toml does not have", loc.Dir, group)
		}
		reqs = append(reqs, members...)
	}
	if err := g.follow(main, reqs); err != nil {
		return nil, err
	}
	reqs, err = requirementsFile(loc.Dir, "requirements.txt", map[string]bool{})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	known := len(g.declared)
	if err := g.follow(main, reqs); err != nil {
		return nil, err
	}
	if main.dependenciesKnown() {
		// The lock is made of what pyproject.toml says: what else requirements.txt has, such as tools, is not in it.
		g.declared = g.declared[:known]
	}
	slices.SortFunc(g.locals, func(a, b Local) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Dir, b.Dir)) })
	for i := 1; i < len(g.locals); i++ {
		if a, b := g.locals[i-1], g.locals[i]; a.Name == b.Name {
			return nil, fmt.Errorf("two local projects are called %s: %s and %s; rename one", a.Name, a.Dir, b.Dir)
		}
	}
	return g, nil
}

// selected returns what the project requires together with those extras, its own extras of extras included.
func (d *description) selected(extras []string) []requirement {
	reqs := slices.Clone(d.Requires)
	seen := map[string]bool{}
	for len(extras) > 0 {
		extra := lock.NormalizeName(extras[0])
		extras = extras[1:]
		if seen[extra] {
			continue
		}
		seen[extra] = true
		for _, r := range d.Extras[extra] {
			if r.name == lock.NormalizeName(d.Name) {
				extras = append(extras, r.extras...)
			}
			reqs = append(reqs, r)
		}
	}
	return reqs
}

// follow sorts the requirements of from into local projects, which it follows in turn, and those that are for the lock.
func (g *graph) follow(from *description, reqs []requirement) error {
	for _, r := range reqs {
		if r.name != "" && r.name == lock.NormalizeName(from.Name) {
			continue
		}
		dir, err := g.localDir(from, &r)
		if err != nil {
			return err
		}
		if dir == "" {
			g.declared = append(g.declared, declared{r, from.Dir})
			continue
		}
		if err := g.add(dir, r.extras); err != nil {
			return fmt.Errorf("%s needs %s: %w", from.Dir, r.text, err)
		}
	}
	return nil
}

// add takes a local project in, or the extras that were not asked of it before.
func (g *graph) add(dir string, extras []string) error {
	if sameDir(dir, g.main.Dir) {
		return nil
	}
	for i := range g.locals {
		l := &g.locals[i]
		if !sameDir(dir, l.Dir) {
			continue
		}
		missing := slices.DeleteFunc(slices.Clone(extras), func(e string) bool { return slices.Contains(l.extras, e) })
		if len(missing) == 0 {
			return nil
		}
		l.extras = append(l.extras, missing...)
		return g.follow(l.about, l.about.selected(missing))
	}
	about, err := describe(dir)
	if err != nil {
		return err
	}
	name := lock.NormalizeName(cmp.Or(about.Name, safeName(filepath.Base(dir))))
	g.locals = append(g.locals, Local{Name: name, Dir: dir, about: about, extras: extras})
	return g.follow(about, about.selected(extras))
}

func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	ia, erra := os.Stat(a)
	ib, errb := os.Stat(b)
	return erra == nil && errb == nil && os.SameFile(ia, ib)
}

// localDir returns the directory that a requirement of from's is, "" if it comes from elsewhere. A path that names a
// file, such as a wheel, is for the lock.
func (g *graph) localDir(from *description, r *requirement) (string, error) {
	dir, ok := r.localPath(from.Dir)
	if !ok && r.name != "" {
		ws, err := g.workspace(from.Dir)
		if err != nil {
			return "", err
		}
		switch path := from.Paths[r.name]; {
		case path != "":
			dir = resolvePath(from.Dir, path)
		case from.Workspace[r.name]:
			if dir = ws.members[r.name]; dir == "" {
				return "", fmt.Errorf("%s says that %s is a member of its workspace, but there is no such member", from.Dir, r.name)
			}
		case ws.paths[r.name] != "":
			dir = resolvePath(ws.dir, ws.paths[r.name])
		case ws.shared[r.name]:
			dir = ws.members[r.name]
		}
	}
	if dir == "" {
		return "", nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("%s needs %s from %s, which does not exist", from.Dir, r.text, dir)
	}
	if !info.IsDir() {
		return "", nil
	}
	return dir, nil
}

func resolvePath(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, filepath.FromSlash(path))
}

// A workspace is uv's: the projects of one repository that depend on each other.
type workspace struct {
	dir     string
	members map[string]string // normalized name → directory
	paths   map[string]string // the root's [tool.uv.sources], which hold for every member
	shared  map[string]bool
}

// workspace returns the workspace that dir belongs to: that of the nearest directory above which declares one.
func (g *graph) workspace(dir string) (*workspace, error) {
	for root := dir; ; root = filepath.Dir(root) {
		if ws, ok := g.workspaces[root]; ok {
			return ws, nil
		}
		ws, err := readWorkspace(root)
		if err != nil {
			return nil, err
		}
		if ws == nil && root == filepath.Dir(root) {
			ws = &workspace{}
		}
		if ws != nil {
			g.workspaces[dir], g.workspaces[root] = ws, ws
			return ws, nil
		}
	}
}

// readWorkspace reads the workspace that root declares, nil if it declares none.
func readWorkspace(root string) (*workspace, error) {
	b, err := readOptional(filepath.Join(root, "pyproject.toml"))
	if err != nil || b == nil {
		return nil, err
	}
	doc, err := parseTOML("pyproject.toml", b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, err)
	}
	v, ok := lookup(doc.root, "tool", "uv", "workspace")
	if !ok {
		return nil, nil
	}
	about := &description{Paths: map[string]string{}, Workspace: map[string]bool{}, pyproject: doc}
	about.readSources()
	ws := &workspace{dir: root, members: map[string]string{}, paths: about.Paths, shared: about.Workspace}
	dirs := []string{root}
	for _, pattern := range strs(mapping(v)["members"]) {
		matches, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			return nil, fmt.Errorf("%s: workspace members %q: %w", root, pattern, err)
		}
		dirs = append(dirs, matches...)
	}
	excluded := strs(mapping(v)["exclude"])
	for _, dir := range dirs {
		rel, err := filepath.Rel(root, dir)
		if err != nil || matchesAny(excluded, filepath.ToSlash(rel)) {
			continue
		}
		if name, err := projectName(dir); err != nil {
			return nil, err
		} else if name != "" {
			ws.members[lock.NormalizeName(name)] = dir
		}
	}
	return ws, nil
}

// projectName returns the name in a directory's pyproject.toml, "" if there is none.
func projectName(dir string) (string, error) {
	b, err := readOptional(filepath.Join(dir, "pyproject.toml"))
	if err != nil {
		return "", err
	}
	doc, err := parseTOML("pyproject.toml", b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	name, _ := lookup(doc.root, "project", "name")
	poetry, _ := lookup(doc.root, "tool", "poetry", "name")
	return cmp.Or(str(name), str(poetry)), nil
}
