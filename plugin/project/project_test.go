package project

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"
)

// checkout writes the files of a txtar archive, given as text, to a directory of its own. A file's content may be
// "-> target", which makes a symlink.
func checkout(t testing.TB, archive string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "checkout")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, f := range txtar.Parse([]byte(archive)).Files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		if len(f.Data) > 3 && string(f.Data[:3]) == "-> " {
			require.NoError(t, os.Symlink(string(f.Data[3:len(f.Data)-1]), name))
			continue
		}
		require.NoError(t, os.WriteFile(name, f.Data, 0o644))
	}
	return dir
}

// fixture writes an archive of testdata.
func fixture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".txtar"))
	require.NoError(t, err)
	return checkout(t, string(b))
}

func load(t testing.TB, dir string) *Project {
	t.Helper()
	p, err := Load(dir)
	require.NoError(t, err)
	return p
}

func TestLoadOwnConfiguration(t *testing.T) {
	dir := checkout(t, `
-- pyproject.toml --
[project]
name = "shop"
version = "1.0"
[tool.other]
unknown = "is not ours"
[tool.pexpress]
python = "3.11"
platform = ["manylinux_2_28_x86_64", "macosx_14_0_arm64"]
lock = "locks/pylock.prod.toml"
extras = ["s3"]
cache = "grpc://cache.example:8980"
codeserver = "127.0.0.1:7700"
[tool.pexpress.location.web]
preset = "asgi"
app = "shop.web:app"
listen = "127.0.0.1:8000"
env = { LOG = "info" }
readiness = { http-path = "/healthz" }
source-roots = ["src"]
[tool.pexpress.location.jobs]
preset = "dagster"
module = "shop.jobs"
attribute = "defs"
working-directory = "etl"
extras = []
[tool.pexpress.location.worker]
preset = "module"
module = "shop.worker"
args = ["--queue", "{port}"]
readiness.grpc-service = ""
[tool.pexpress.location.tool]
preset = "command"
args = ["serve", "-p", "{port}"]
readiness.tcp = true
`)
	p := load(t, dir)
	require.Equal(t, "shop", p.Name)
	require.Equal(t, "3.11", p.Python)
	require.Equal(t, "manylinux_2_28_x86_64", p.Platform)
	require.Equal(t, []string{"manylinux_2_28_x86_64", "macosx_14_0_arm64"}, p.Platforms)
	require.Equal(t, "locks/pylock.prod.toml", p.Lock)
	require.Equal(t, "grpc://cache.example:8980", p.Cache)
	require.Equal(t, "127.0.0.1:7700", p.Codeserver)
	require.Len(t, p.Locations, 4)

	web, err := p.Location("web")
	require.NoError(t, err)
	require.Equal(t, Entry{Preset: "asgi", Args: []string{"shop.web:app"}, Readiness: Readiness{HTTPPath: "/healthz"}}, web.Entry)
	require.Equal(t, map[string]string{"LOG": "info"}, web.Env)
	require.Equal(t, "127.0.0.1:8000", web.Listen)
	require.Equal(t, []string{"s3"}, web.Extras)
	require.Equal(t, p.Lock, web.Lock)
	require.Equal(t, []string{"s3"}, p.Extras)

	jobs, err := p.Location("jobs")
	require.NoError(t, err)
	require.Equal(t, Entry{
		Preset: "dagster", Args: []string{"-m", "shop.jobs", "-a", "defs"}, WorkingDirectory: "etl",
	}, jobs.Entry)
	require.Empty(t, jobs.Extras)

	worker, err := p.Location("worker")
	require.NoError(t, err)
	require.Equal(t, []string{"shop.worker", "--queue", "{port}"}, worker.Entry.Args)
	require.NotNil(t, worker.Entry.Readiness.GRPCService)
	require.Empty(t, *worker.Entry.Readiness.GRPCService)

	tool, err := p.Location("tool")
	require.NoError(t, err)
	require.True(t, tool.Entry.Readiness.TCP)

	_, err = p.Location("")
	require.ErrorContains(t, err, "several locations, name one of them: jobs, tool, web, worker")
	_, err = p.Location("wbe")
	require.ErrorContains(t, err, `no location "wbe"`)
}

func TestLoadReportsEveryMistakeWithItsLine(t *testing.T) {
	dir := checkout(t, `
-- pexpress.toml --
python = 3.11
platfrom = "any"
lock = "lock.toml"
exclude = ["a", 2]

[location.web]
preset = "asgi"
app = "no colon"
listen = "8000"
working_directory = "x"
directory = "../elsewhere"
readiness = { http-path = "healthz", tcp = true }
env = { PORT = 1 }

[location.job]
preset = "dagster"
app = "a:b"

[location."bad name"]
preset = "cron"
`)
	_, err := Load(dir)
	for _, want := range []string{
		"pexpress.toml:1: python must be a string, it is a float",
		"pexpress.toml:2: platfrom is not a key here; did you mean platform?",
		`pexpress.toml:3: lock must name a file pylock.toml or pylock.NAME.toml (PEP 751), it is "lock.toml"`,
		"pexpress.toml:4: exclude must hold strings only, item 2 is an integer",
		`pexpress.toml:8: location.web.app must be "module:name", it is "no colon"`,
		"pexpress.toml:9: location.web.listen must be host:port",
		"pexpress.toml:10: location.web.working_directory is not a key here; did you mean working-directory?",
		`pexpress.toml:11: location.web.directory must be a directory of the project, "../elsewhere" is not`,
		`pexpress.toml:12: location.web.readiness.http-path must begin with a slash`,
		"pexpress.toml:12: location.web.readiness must have exactly one of",
		"pexpress.toml:13: location.web.env.PORT must be a string, it is an integer",
		"pexpress.toml:17: location.job.app is not a key of the preset dagster, which has module, package, file, autoload, attribute",
		`pexpress.toml:16: location.job.preset "dagster" needs exactly one of: module, package, file, autoload`,
		"pexpress.toml:19: location.bad name is no name for a location",
		`pexpress.toml:20: location.bad name.preset must be one of asgi, command, dagster, module, wsgi, it is "cron"`,
	} {
		require.ErrorContains(t, err, want)
	}
}

func TestLoadRefusesTwoConfigurations(t *testing.T) {
	_, err := Load(checkout(t, "-- pyproject.toml --\n[tool.pexpress]\n-- pexpress.toml --\npython = \"3.11\"\n"))
	require.ErrorContains(t, err, "configured twice")
}

func TestLoadSyntaxErrorNamesPlace(t *testing.T) {
	_, err := Load(checkout(t, "-- pexpress.toml --\npython = \"3.11\"\nlock = \n"))
	require.ErrorContains(t, err, "pexpress.toml:2:")
}

func TestLoadWithoutConfiguration(t *testing.T) {
	dir := checkout(t, "-- .python-version --\n3.12.4\n-- a.py --\n")
	p := load(t, dir)
	require.Equal(t, "checkout", p.Name)
	require.Equal(t, "3.12", p.Python)
	require.Empty(t, p.Platform)
	require.Equal(t, "pylock.toml", p.Lock)
	loc, err := p.Location("")
	require.NoError(t, err)
	require.Equal(t, "checkout", loc.Name)
	require.ErrorContains(t, loc.CheckEntry(), "[tool.pexpress.location.checkout]")
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".python-version"), []byte("pypy3.10\n"), 0o644))
	require.Empty(t, load(t, dir).Python)
}

func TestLoadDagsterCloud(t *testing.T) {
	p := load(t, fixture(t, "dagster_cloud"))
	require.Equal(t, []string{"-m", "etl.definitions", "-a", "defs", "-d", "lib"}, p.Locations[0].Entry.Args)
	require.Equal(t, filepath.Join(p.Dir, "services/etl"), p.Locations[0].Dir)
	require.Equal(t, "services/etl/pylock.toml", p.Locations[0].Lock)
	require.Equal(t, "127.0.0.1:4000", p.Locations[0].Listen, "pexpress.toml adds to the location")
	require.Equal(t, Entry{Preset: "dagster", Args: []string{"--package-name", "pack"}}, p.Locations[1].Entry)
	require.Equal(t, Entry{Preset: "dagster", Args: []string{"-f", "jobs.py"}}, p.Locations[2].Entry)
	require.Equal(t, []string{
		"dagster_cloud.yaml:5: image is ignored",
		"dagster_cloud.yaml:11: executable_path is ignored",
		"dagster_cloud.yaml:19: container_context is ignored",
	}, p.Warnings)
	for _, loc := range p.Locations {
		require.NoError(t, loc.CheckEntry())
	}
}

func TestLoadDagsterCloudMistakes(t *testing.T) {
	for name, test := range map[string]struct{ yaml, want string }{
		"none":      {"locations: []\n", "dagster_cloud.yaml has no locations"},
		"no source": {"locations:\n  - location_name: a\n", "dagster_cloud.yaml:2: location \"a\": code_source must have exactly one of"},
		"two": {
			"locations:\n  - location_name: a\n    code_source: {module_name: m, python_file: f}\n",
			"must have exactly one of module_name, package_name, python_file",
		},
		"twice": {
			"locations:\n  - location_name: a\n    code_source: {module_name: m}\n  - location_name: a\n    code_source: {module_name: m}\n",
			"dagster_cloud.yaml:4: the location \"a\" is there twice",
		},
		"build": {
			"locations:\n  - location_name: a\n    code_source: {module_name: m}\n    build: {directory: ../x}\n",
			`build.directory "../x" is not a directory of the project`,
		},
		"type":   {"locations:\n  - location_name: [a]\n", "line 2: cannot unmarshal"},
		"syntax": {"locations: [\n", "dagster_cloud.yaml: yaml: line"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(checkout(t, "-- dagster_cloud.yaml --\n"+test.yaml))
			require.ErrorContains(t, err, test.want)
		})
	}
}
