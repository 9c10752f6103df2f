package examples

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
)

// pantsRepo is a copy of examples/pants with its locks made.
type pantsRepo struct {
	t     *testing.T
	pants string // the program
	dir   string
}

// newPantsRepo copies the example and locks it: what is committed are requirements with hashes.
func newPantsRepo(t *testing.T) *pantsRepo {
	r := &pantsRepo{t: t, pants: filepath.Join(clients(t), "pants/bin/pants"), dir: t.TempDir()}
	if _, err := os.Stat(r.pants); os.IsNotExist(err) {
		t.Skip("needs Pants, and that Python 3.9")
	}
	require.NoError(t, os.CopyFS(r.dir, os.DirFS("pants")))
	r.write("BUILDROOT", "")
	r.lock("3rdparty/pex")
	r.lock("3rdparty")
	r.lock("services/greet", "requirements.txt")
	return r
}

func (r *pantsRepo) path(name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

func (r *pantsRepo) read(name string) string {
	b, err := os.ReadFile(r.path(name))
	require.NoError(r.t, err)
	return string(b)
}

func (r *pantsRepo) write(name, content string) {
	require.NoError(r.t, os.MkdirAll(filepath.Dir(r.path(name)), 0o755))
	require.NoError(r.t, os.WriteFile(r.path(name), []byte(content), 0o644))
}

// edit replaces a text that must be there.
func (r *pantsRepo) edit(name, before, after string) {
	content := r.read(name)
	require.Contains(r.t, content, before)
	r.write(name, strings.ReplaceAll(content, before, after))
}

func (r *pantsRepo) lock(project string, requirements ...string) {
	r.pexpress(append([]string{"-C", r.path(project), "lock"}, requirements...)...)
}

// pexpress runs the command line, with a cache of its own.
func (r *pantsRepo) pexpress(args ...string) string {
	return client(r.t, r.dir, []string{"PEXPRESS_HOME=" + filepath.Join(r.dir, ".pexpress")}, filepath.Join(bin, "pexpress"), args...)
}

// tree says the digests of a directory, of its root and of all its files, without the directory's name.
func (r *pantsRepo) tree(dir string) string {
	return strings.ReplaceAll(r.pexpress("digest", "--files", dir), dir, "")
}

// pantsHost is a machine that runs Pants, with stores of its own.
type pantsHost struct {
	*pantsRepo
	env []string
}

// host returns a machine whose stores are empty.
func (r *pantsRepo) host(env ...string) *pantsHost {
	state := r.t.TempDir()
	rules, err := filepath.Abs("../rules/pants")
	require.NoError(r.t, err)
	binary, err := os.ReadFile(filepath.Join(bin, "pexpress"))
	require.NoError(r.t, err)
	size := digestOf(string(binary))
	platform := map[string]string{"amd64": "linux_x86_64", "arm64": "linux_arm64"}[runtime.GOARCH]
	h := &pantsHost{r, []string{
		"HOME=" + state, "XDG_CACHE_HOME=" + filepath.Join(state, "cache"), "PYTHONDONTWRITEBYTECODE=1",
		"PANTS_PYTHONPATH=['" + rules + "']", "PANTS_PANTSD=false", "PANTS_WATCH_FILESYSTEM=false", "PANTS_STATS_LOG=true",
		"PANTS_PEXPRESS_VERSION=test", "PANTS_PEXPRESS_URL_TEMPLATE=file://" + filepath.Join(bin, "pexpress"),
		fmt.Sprintf("PANTS_PEXPRESS_KNOWN_VERSIONS=['test|%s|%s']", platform, strings.ReplaceAll(size, "/", "|")),
	}}
	for _, name := range []string{"LOCAL_STORE_DIR", "NAMED_CACHES_DIR", "WORKDIR", "PHYSICAL_WORKDIR_BASE", "SUBPROCESSDIR"} {
		h.env = append(h.env, "PANTS_"+name+"="+filepath.Join(state, name))
	}
	// Pants brings certificates of its own, where pip and Go look at the system's.
	for _, file := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"} {
		if _, err := os.Stat(file); err == nil {
			h.env = append(h.env, "PANTS_CA_CERTS_PATH="+file)
			break
		}
	}
	h.env = append(h.env, env...)
	return h
}

// remoteCache are the options that make a pexcache the host's remote cache.
func remoteCache(p *pexcache) []string {
	return []string{"PANTS_REMOTE_CACHE_READ=true", "PANTS_REMOTE_CACHE_WRITE=true", "PANTS_REMOTE_STORE_ADDRESS=grpc://" + p.grpc}
}

var pantsCounter = regexp.MustCompile(`(?m)^  (\w+): (\d+)$`)

// run runs Pants and returns its counters.
func (h *pantsHost) run(args ...string) map[string]int {
	require.NoError(h.t, os.RemoveAll(h.path("dist")))
	counters := map[string]int{}
	for _, m := range pantsCounter.FindAllStringSubmatch(client(h.t, h.dir, h.env, h.pants, args...), -1) {
		counters[m[1]] = number(h.t, m[2])
	}
	require.Contains(h.t, counters, "local_execution_requests")
	return counters
}

// roots are the digests of what a location was packaged to.
func (h *pantsHost) roots(location string) (deps, source digest.Digest) {
	return h.root("dist/" + location + "/deps.pex"), h.root("dist/" + location + "/source.pex")
}

func (h *pantsHost) root(dir string) digest.Digest {
	said, _, _ := strings.Cut(h.pexpress("digest", h.path(dir)), " ")
	d, err := digest.Parse(said)
	require.NoError(h.t, err)
	return d
}
