package project

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache/durable"
)

// A filter holds what the configuration says about single files; its patterns are those of a .gitignore at the root
// of the source tree.
type filter struct {
	include, exclude, secrets *rules
}

func newFilter(include, exclude, secrets []string) *filter {
	compile := func(patterns []string) *rules { return parseRules(strings.Join(patterns, "\n"), "", nil) }
	return &filter{include: compile(include), exclude: compile(exclude), secrets: compile(secrets)}
}

// reaches reports whether something below a directory that is left out may have been asked for.
func (f *filter) reaches(treePath string) bool {
	return f.include.reaches(treePath) || f.secrets.reaches(treePath)
}

// found is what a walk selects, in order of path.
type found struct {
	files    []SourceFile
	links    []string // tree paths
	dirs     []string // those that were listed, absolute
	warnings []string
}

// A walker lists one directory tree. It asks the file system for nothing but the entries of each directory: their
// types come with them, so that ten thousand files need no stat.
type walker struct {
	ctx    context.Context
	base   string // the directory walked, absolute
	prefix string // of tree paths: "" or "_workspace/name/"
	above  string // path of base below the directory of the outermost .gitignore, with a trailing slash
	filter *filter
	group  *errgroup.Group

	mu  sync.Mutex
	all found
}

// a place is one directory of a walk.
type place struct {
	sub           string // path below base with a trailing slash; "" for base itself
	rules         *rules // of the directories above
	wanted        bool   // `include` named it or a directory above: .gitignore does not count
	onlyIncluded  bool   // it is left out, but something below was asked for
	besideProject bool   // its parent directory is a Python project's
	buildOutput   []string
}

// walk lists what base holds and source.pex takes. gitTop is the directory whose .gitignore is the outermost: base or
// one above it.
func walk(ctx context.Context, base, gitTop, prefix string, f *filter) (*found, error) {
	outer, above, err := outerRules(base, gitTop)
	if err != nil {
		return nil, err
	}
	w := &walker{ctx: ctx, base: base, prefix: prefix, above: above, filter: f, group: new(errgroup.Group)}
	w.group.SetLimit(runtime.GOMAXPROCS(0))
	err = w.visit(place{rules: outer})
	if groupErr := w.group.Wait(); err == nil {
		err = groupErr
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(w.all.files, func(a, b SourceFile) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(w.all.links)
	slices.Sort(w.all.warnings)
	return &w.all, nil
}

// visit lists one directory, and those below it, in parallel as far as there are processors.
func (w *walker) visit(p place) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	dir := filepath.Join(w.base, filepath.FromSlash(p.sub))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w; exclude it in the configuration if it is not needed", dir, err)
	}
	if p.sub != "" && !p.wanted && isDisposable(entries) {
		if !w.filter.reaches(w.prefix + strings.TrimSuffix(p.sub, "/")) {
			return nil
		}
		p.onlyIncluded = true
	}
	if p.besideProject {
		p.buildOutput = buildOutput(filepath.Base(dir), entries)
	}
	if p.rules, err = w.readIgnore(dir, p, entries); err != nil {
		return err
	}
	isProject := hasProjectFile(entries)
	here := found{dirs: []string{dir}}
	for _, e := range entries {
		if !utf8.ValidString(e.Name()) {
			return fmt.Errorf("%s: the name %q is not UTF-8; rename it, or exclude %s", dir, e.Name(), dir)
		}
		child, ok := w.enter(p, e, &here)
		if !ok {
			continue
		}
		child.besideProject = isProject
		if w.group.TryGo(func() error { return w.visit(child) }) {
			continue
		}
		if err := w.visit(child); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.files = append(w.all.files, here.files...)
	w.all.links = append(w.all.links, here.links...)
	w.all.dirs = append(w.all.dirs, here.dirs...)
	w.all.warnings = append(w.all.warnings, here.warnings...)
	return nil
}

// enter takes one entry of p into here, or returns the place to visit when it is a directory.
func (w *walker) enter(p place, e fs.DirEntry, here *found) (place, bool) {
	sub := p.sub + e.Name()
	verdict := w.judge(p, sub, e)
	switch {
	case verdict == leaveOutSecret:
		here.warnings = append(here.warnings, fmt.Sprintf(
			"%s looks like a secret and is left out; if the code needs it, list it: secrets = [%q] (or silence this: exclude = [%q])",
			w.prefix+sub, w.prefix+sub, w.prefix+sub))
	case e.IsDir():
		child := place{sub: sub + "/", rules: p.rules, wanted: p.wanted || verdict == want, onlyIncluded: p.onlyIncluded}
		if verdict == leaveOut {
			child.onlyIncluded = true
			return child, !neverName(e.Name()) && w.filter.reaches(w.prefix+sub)
		}
		if verdict == want {
			child.onlyIncluded = false
		}
		return child, true
	case verdict == leaveOut:
	case e.Type() == fs.ModeSymlink:
		here.links = append(here.links, w.prefix+sub)
	case !e.Type().IsRegular():
		here.warnings = append(here.warnings, fmt.Sprintf("%s is a %s and is left out", w.prefix+sub, kindOf(e.Type())))
	default:
		abs := w.base + string(filepath.Separator) + filepath.FromSlash(sub)
		here.files = append(here.files, SourceFile{Path: w.prefix + sub, Abs: abs})
	}
	return place{}, false
}

type verdict uint8

const (
	take           verdict = iota
	want                   // take, and so everything below
	leaveOut               // without a word
	leaveOutSecret         // with a warning
)

// judge decides on one entry. The order is: the configuration, then what is always left out, then .gitignore.
func (w *walker) judge(p place, sub string, e fs.DirEntry) verdict {
	name, treePath, isDir := e.Name(), w.prefix+sub, e.IsDir()
	if neverName(name) {
		return leaveOut
	}
	if w.filter.secrets.match(treePath, isDir) {
		return want
	}
	secret := !isDir && looksSecret(name)
	if w.filter.include.match(treePath, isDir) {
		if secret {
			return leaveOutSecret
		}
		return want
	}
	if w.filter.exclude.match(treePath, isDir) {
		return leaveOut
	}
	if p.onlyIncluded || leftOutName(name) || !p.wanted && matchesAny(p.buildOutput, name) {
		return leaveOut
	}
	if secret {
		return leaveOutSecret
	}
	if !p.wanted && p.rules.match(w.above+sub, isDir) {
		return leaveOut
	}
	if p.sub == "" && !isDir && !p.wanted && hashedRequirements(w.base, name) {
		return leaveOut
	}
	return take
}

// readIgnore adds the directory's own .gitignore to the rules. Like git, it does not follow a symlink of that name.
func (w *walker) readIgnore(dir string, p place, entries []fs.DirEntry) (*rules, error) {
	i, ok := find(entries, ".gitignore")
	if !ok || !entries[i].Type().IsRegular() {
		return p.rules, nil
	}
	text, err := durable.ReadFile(filepath.Join(dir, ".gitignore"))
	if err != nil {
		return nil, err
	}
	return parseRules(string(text), w.above+p.sub, p.rules), nil
}

// outerRules reads the .gitignore files of the directories from gitTop down to base, base's own not among them, and
// returns base's path below gitTop. When they ignore base itself, as in a scratch directory inside a checkout, base
// is taken for a world of its own.
func outerRules(base, gitTop string) (r *rules, above string, err error) {
	rel, err := filepath.Rel(gitTop, base)
	if err != nil || rel == "." {
		return nil, "", err
	}
	dir, path := gitTop, ""
	for part := range strings.SplitSeq(filepath.ToSlash(rel), "/") {
		text, err := durable.ReadFile(filepath.Join(dir, ".gitignore"))
		if err != nil && !os.IsNotExist(err) {
			return nil, "", err
		}
		r = parseRules(string(text), path, r)
		if r.match(path+part, true) {
			return nil, "", nil
		}
		dir, path = filepath.Join(dir, part), path+part+"/"
	}
	return r, path, nil
}

// gitTop returns the directory of the repository that dir is in, or limit if that is above dir, or dir.
func gitTop(dir, limit string) string {
	for top := dir; ; top = filepath.Dir(top) {
		if _, err := os.Lstat(filepath.Join(top, ".git")); err == nil {
			return top
		}
		if top == filepath.Dir(top) {
			break
		}
	}
	if rel, err := filepath.Rel(limit, dir); err == nil && filepath.IsLocal(rel) {
		return limit
	}
	return dir
}

func kindOf(m fs.FileMode) string {
	switch m {
	case fs.ModeNamedPipe:
		return "named pipe"
	case fs.ModeSocket:
		return "socket"
	}
	return "device"
}
