package project

import (
	"cmp"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pexpress/pexpress/cache/lazy"
)

// configure applies the project's own configuration to the locations that dagster_cloud.yaml names.
func (p *Project) configure(t *table, locations []Location) {
	if p.Python = t.string("python"); p.Python != "" && !exactPython().MatchString(p.Python) {
		t.errorf("python", `must be a version such as "3.11", it is %q`, p.Python)
	}
	if p.Platforms = t.stringOrList("platform"); len(p.Platforms) > 0 {
		p.Platform = p.Platforms[0]
	}
	p.Cache = t.string("cache")
	p.Codeserver = t.string("codeserver")
	p.filter = newFilter(t.strings("include"), t.strings("exclude"), t.strings("secrets"))
	base := readShared(t, shared{})
	p.Lock, p.Extras, p.Groups = filepath.FromSlash(cmp.Or(base.lock, DefaultLock)), base.extras, base.groups
	named := t.sub("location")
	p.Outputs = readOutputs(t.sub("output"))
	t.done()

	byName := map[string]*Location{}
	for i := range locations {
		byName[locations[i].Name] = &locations[i]
	}
	if named != nil {
		for _, name := range slices.Sorted(maps.Keys(named.m)) {
			if !locationName().MatchString(name) {
				named.errorf(name, "is no name for a location: %s", nameRule)
			}
			if byName[name] == nil {
				byName[name] = &Location{Name: name, Dir: p.Dir}
			}
		}
	}
	if len(byName) == 0 {
		byName[safeName(p.Name)] = &Location{Name: safeName(p.Name), Dir: p.Dir}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		loc, own := byName[name], base
		if named != nil {
			if lt := named.sub(name); lt != nil {
				own = p.readLocation(lt, loc, base)
			}
		}
		loc.Extras, loc.Groups, loc.roots = own.extras, own.groups, own.roots
		if loc.Lock = filepath.FromSlash(own.lock); loc.Lock == "" {
			if rel, err := filepath.Rel(p.Dir, loc.Dir); err == nil {
				loc.Lock = filepath.Join(rel, DefaultLock)
			}
		}
		p.Locations = append(p.Locations, *loc)
	}
}

const nameRule = "1 to 63 letters, digits, '-', '_' or '.', starting with a letter or digit"

// shared are the settings that a location can have of its own or take from the project.
type shared struct {
	lock                  string
	extras, groups, roots []string
}

var lockName = lazy.Regexp(`^pylock(\.[^.]+)?\.toml$`)

// readShared reads the shared settings of t on top of those above it.
func readShared(t *table, s shared) shared {
	if lock := t.string("lock"); lock != "" {
		s.lock = lock
		if !lockName().MatchString(filepath.Base(lock)) {
			t.errorf("lock", "must name a file pylock.toml or pylock.NAME.toml (PEP 751), it is %q", lock)
		}
		if !filepath.IsLocal(lock) {
			t.errorf("lock", "must lie inside the project, %q does not", lock)
		}
	}
	if v := t.strings("extras"); t.m["extras"] != nil {
		s.extras = v
	}
	if v := t.strings("groups"); t.m["groups"] != nil {
		s.groups = v
	}
	if v := t.strings("source-roots"); t.m["source-roots"] != nil {
		s.roots = []string{}
		for _, root := range v {
			if !filepath.IsLocal(root) {
				t.errorf("source-roots", "must lie inside the project, %q does not", root)
			}
			s.roots = append(s.roots, filepath.ToSlash(filepath.Clean(root)))
		}
	}
	return s
}

// readLocation reads one location's table into loc, which dagster_cloud.yaml may have filled.
func (p *Project) readLocation(t *table, loc *Location, base shared) shared {
	own := readShared(t, base)
	if dir := t.string("directory"); dir != "" {
		loc.Dir = filepath.Join(p.Dir, filepath.FromSlash(dir))
		if info, err := os.Stat(loc.Dir); !filepath.IsLocal(dir) || err != nil || !info.IsDir() {
			t.errorf("directory", "must be a directory of the project, %q is not", dir)
		}
	}
	if env := t.stringMap("env"); env != nil {
		loc.Env = env
	}
	if loc.Listen = t.string("listen"); loc.Listen != "" {
		_, port, err := net.SplitHostPort(loc.Listen)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
			t.errorf("listen", `must be host:port such as "127.0.0.1:8000", it is %q`, loc.Listen)
		}
	}
	loc.Limits = readLimits(t)
	loc.SecretEnv = readSecretEnv(t, loc.Env)
	loc.Cold = t.m["warm"] != nil && !get[bool](t, "warm", "a boolean")
	t.known["warm"] = true
	readEntry(t, &loc.Entry)
	t.done()
	return own
}

// entryKeys are the keys that say what to run, by preset: the first of them, or one of the first list, must be there.
var entryKeys = map[string]struct{ need, may []string }{
	"dagster": {need: []string{"module", "package", "file", "autoload"}, may: []string{"attribute"}},
	"asgi":    {need: []string{"app"}},
	"wsgi":    {need: []string{"app"}},
	"module":  {need: []string{"module"}, may: []string{"args"}},
	"command": {need: []string{"args"}},
}

// dagsterFlags are the flags of `dagster api grpc` for the keys of the configuration.
var dagsterFlags = []struct{ key, flag string }{
	{"module", "-m"},
	{"package", "--package-name"},
	{"file", "-f"},
	{"autoload", "--autoload-defs-module-name"},
	{"attribute", "-a"},
}

func readEntry(t *table, e *Entry) {
	value := map[string][]string{}
	for _, key := range []string{"app", "module", "package", "file", "autoload", "attribute"} {
		if s := t.string(key); s != "" {
			value[key] = []string{s}
		}
	}
	if args := t.strings("args"); len(args) > 0 {
		value["args"] = args
	}
	preset := t.string("preset")
	if wd := t.string("working-directory"); wd != "" {
		if !filepath.IsLocal(wd) {
			t.errorf("working-directory", "must lie inside the location's directory, %q does not", wd)
		}
		e.WorkingDirectory = filepath.ToSlash(filepath.Clean(wd))
	}
	readReadiness(t, &e.Readiness)
	if preset == "" {
		if len(value) > 0 {
			t.errorf(slices.Sorted(maps.Keys(value))[0], "needs a preset beside it: %s", presetNames())
		}
		return
	}
	keys, ok := entryKeys[preset]
	if !ok {
		t.errorf("preset", "must be one of %s, it is %q", presetNames(), preset)
		return
	}
	e.Preset = preset
	e.Args = entryArgs(t, preset, keys.need, keys.may, value)
}

func presetNames() string { return strings.Join(slices.Sorted(maps.Keys(entryKeys)), ", ") }

var appSpec = lazy.Regexp(`^[\w.]+:[\w.]+$`)

// entryArgs checks that the keys present are those of the preset and makes Entry.Args of them.
func entryArgs(t *table, preset string, need, may []string, value map[string][]string) []string {
	given := 0
	for _, key := range slices.Sorted(maps.Keys(value)) {
		if slices.Contains(need, key) {
			given++
		} else if !slices.Contains(may, key) {
			t.errorf(key, "is not a key of the preset %s, which has %s", preset, strings.Join(append(need, may...), ", "))
		}
	}
	if given != 1 {
		t.errorf("preset", "%q needs exactly one of: %s", preset, strings.Join(need, ", "))
		return nil
	}
	switch preset {
	case "dagster":
		var args []string
		for _, f := range dagsterFlags {
			if v := value[f.key]; v != nil {
				args = append(args, f.flag, v[0])
			}
		}
		return args
	case "asgi", "wsgi":
		if !appSpec().MatchString(value["app"][0]) {
			t.errorf("app", `must be "module:name", it is %q`, value["app"][0])
		}
		return value["app"]
	default:
		return append(value["module"], value["args"]...)
	}
}

func readReadiness(t *table, r *Readiness) {
	sub := t.sub("readiness")
	if sub == nil {
		return
	}
	if _, ok := sub.m["grpc-service"]; ok {
		service := sub.string("grpc-service")
		r.GRPCService = &service
	}
	sub.known["grpc-service"] = true
	if r.HTTPPath = sub.string("http-path"); r.HTTPPath != "" && r.HTTPPath[0] != '/' {
		sub.errorf("http-path", "must begin with a slash, it is %q", r.HTTPPath)
	}
	r.TCP = get[bool](sub, "tcp", "a boolean")
	sub.done()
	if len(sub.m) != 1 {
		t.errorf("readiness", "must have exactly one of grpc-service, http-path, tcp")
	}
}
