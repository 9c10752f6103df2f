package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// hermetic are the flags of a build whose actions see nothing but their inputs.
var hermetic = []string{"--spawn_strategy=linux-sandbox", "--incompatible_strict_action_env", "--nosandbox_default_allow_network"}

// TestBazelDigests compares every file that Bazel builds with what `pexpress build` makes: from the sandbox, and from a
// remote cache on a host that has built nothing.
func TestBazelDigests(t *testing.T) {
	s := newShop(t)
	want := map[string][]string{}
	for _, name := range services {
		out := filepath.Join(t.TempDir(), name)
		s.pexpress("export", name, "--layout", "packed", "--out", out)
		want["bazel-bin/deps.pex"] = s.files(filepath.Join(out, "deps.pex"))
		want["bazel-bin/services/"+name+"/source.pex"] = s.files(filepath.Join(out, "source.pex"))
	}
	require.Len(t, want, 4)
	require.Greater(t, len(want["bazel-bin/deps.pex"]), 60)
	check := func(s *shop) {
		for dir, files := range want {
			require.Equal(t, files, s.files(filepath.Join(s.workspace, dir)), dir)
		}
	}
	s.build(append(hermetic, "//...")...)
	check(s)

	cache := "--remote_cache=grpc://" + servePexcache(t).grpc
	s.bazel("clean")
	s.build(append(hermetic, cache, "//...")...)
	other := s.elsewhere()
	requireRemote(t, other.build(cache, "//..."))
	check(other)
}

// everything is what a cold build of //... takes.
var everything = map[string]int{
	"PexBootstrap": 1, "PexDeps": 1, "PexDepsSummary": 1, "PexSource": 3, "PexSourceSummary": 3, "PexDescribe": 3, "PexZipapp": 2,
}

// TestBazelRebuilds counts the actions of builds after changes.
func TestBazelRebuilds(t *testing.T) {
	p := servePexcache(t)
	cache := "--remote_cache=grpc://" + p.grpc
	s := newShop(t)
	require.Equal(t, everything, mnemonics(s.build(append(hermetic, cache, "//...")...)), "cold")
	require.Empty(t, s.build(append(hermetic, cache, "//...")...), "nothing has changed")

	store := filepath.Join(s.workspace, "services/orders/orders/store.py")
	b, err := os.ReadFile(store)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(store, append(b, "\n# edited\n"...), 0o644))
	edit := s.build(append(hermetic, cache, "//...")...)
	require.Equal(t, map[string]int{"PexSource": 1, "PexSourceSummary": 1, "PexDescribe": 1, "PexZipapp": 2}, mnemonics(edit))
	for _, sp := range edit {
		require.Contains(t, sp.ProgressMessage, "//services/orders:")
	}

	s.bump()
	require.Equal(t, map[string]int{"PexDeps": 1, "PexDepsSummary": 1, "PexDescribe": 3, "PexZipapp": 2},
		mnemonics(s.build(append(hermetic, cache, "//...")...)), "one wheel is another")

	require.Contains(t, s.bazel("test", append(hermetic, cache, "//...")...), "PASSED")
	require.Contains(t, s.bazel("run", append(hermetic, cache, "//services/orders:orders", "--", "--version")...), "uvicorn")

	// On a host that has built nothing no action runs, and where Bazel is to fetch no output it fetches none.
	other := s.elsewhere()
	again := other.build(cache, "//...")
	require.Equal(t, everything, mnemonics(again))
	requireRemote(t, again)
	withoutBytes(t, p, s, cache)
}

// bump exchanges the wheel of six for another version, which lies beside the lock.
func (s *shop) bump() {
	out, err := exec.Command("python3", "-m", "pip", "download", "-q", "--no-deps", "-d", filepath.Join(s.workspace, "wheels"), "six==1.16.0").CombinedOutput()
	require.NoError(s.t, err, "%s", out)
	path := filepath.Join(s.workspace, "pylock.toml")
	b, err := os.ReadFile(path)
	require.NoError(s.t, err)
	six := regexp.MustCompile(`(?s)name = "six"\n.*?\n\n`)
	require.Len(s.t, six.FindAll(b, -1), 1)
	b = six.ReplaceAll(b, []byte(`name = "six"
version = "1.16.0"
wheels = [{ path = "wheels/six-1.16.0-py2.py3-none-any.whl", hashes = { sha256 = "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254" } }]

`))
	require.NoError(s.t, os.WriteFile(path, b, 0o644))
}

// deploys are the targets that a team builds before it deploys.
var deploys = []string{"//services/catalog:deploy", "//services/mail:deploy", "//services/orders:deploy"}

// withoutBytes builds all deployments without their bytes.
func withoutBytes(t *testing.T, p *pexcache, s *shop, cache string) {
	other := s.elsewhere()
	before := readByBazel(p)
	spawns := other.build(append(deploys, cache, "--remote_download_minimal")...)
	require.Equal(t, map[string]int{"PexBootstrap": 1, "PexDepsSummary": 1, "PexSourceSummary": 3, "PexDescribe": 3}, mnemonics(spawns))
	requireRemote(t, spawns)
	for _, name := range []string{"deps.blobs", "deps.summary.json", "services/orders/deploy.descriptor.json"} {
		require.NoFileExists(t, filepath.Join(s.workspace, "bazel-bin", name))
		entries, _ := os.ReadDir(filepath.Join(s.workspace, "bazel-bin", name))
		require.Empty(t, entries, name)
	}
	// The Tree messages, which say what the directories hold, are all that it reads.
	require.Less(t, readByBazel(p)-before, int64(256<<10))
}

// TestBazelDeploy deploys with `bazel run` from a host that has built nothing, and asks the service.
func TestBazelDeploy(t *testing.T) {
	p := servePexcache(t)
	cache := "--remote_cache=grpc://" + p.grpc
	s := newShop(t)
	s.build(append(hermetic, cache, "//services/orders:deploy")...)

	h := newHost(t, nil)
	h.remote = "grpc://" + p.grpc
	require.NoError(t, os.MkdirAll(h.project, 0o755))
	h.start()
	other := s.elsewhere()
	before := readByBazel(p)
	out := other.bazel("run", cache, "--remote_download_toplevel", "//services/orders:deploy", "--",
		"--cache", h.remote, "--to", h.socket(), "--output", "json")
	address := regexp.MustCompile(`"event":"deployed","address":"([^"]+)"`).FindStringSubmatch(out)
	require.NotNil(t, address, "%s", out)
	require.Equal(t, "orders: 42.00 EUR", h.get(address[1], "/"))
	for _, name := range []string{"deps.pex", "deps.blobs", "services/orders/source.pex", "services/orders/source.blobs"} {
		entries, _ := os.ReadDir(filepath.Join(s.workspace, "bazel-bin", name))
		require.Empty(t, entries, "%s is not what a deploy needs", name)
	}
	require.Less(t, readByBazel(p)-before, int64(1<<20), "25 MB are what the trees have")

	// A cache that does not have the files is told so.
	_, errs, err := other.try("run", cache, "--remote_download_toplevel", "//services/orders:deploy", "--",
		"--cache", t.TempDir(), "--to", h.socket())
	require.Error(t, err)
	require.Contains(t, errs, "build with that cache as the remote cache")
}
