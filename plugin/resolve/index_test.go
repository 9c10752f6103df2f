package resolve

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/plugin/lock"
)

// flat makes a directory of wheels, as --find-links reads it.
func flat(t *testing.T) string {
	dir := t.TempDir()
	for _, rel := range releases {
		require.NoError(t, os.WriteFile(filepath.Join(dir, rel.filename()), rel.wheel(), 0o600))
	}
	return dir
}

func TestFlatIndexOfPip(t *testing.T) {
	isolate(t)
	dir := flat(t)
	t.Setenv("PIP_FIND_LINKS", dir)
	t.Setenv("PIP_NO_INDEX", "1")
	_, wheels := locked(t, Request{Dir: project(t, map[string]string{"requirements.txt": "alpha"}), Python: "3.11"}, lock.Selection{})
	require.Equal(t, []string{"alpha 2.0", "beta 2.0"}, names(wheels))
	require.Contains(t, wheels[0].URL, dir)

	t.Setenv("PIP_FIND_LINKS", filepath.Join(dir, "gone"))
	_, err := try(t, Request{Dir: project(t, map[string]string{"requirements.txt": "alpha"}), Python: "3.11"})
	require.ErrorIs(t, err, ErrResolve, "without an index there is none, whatever the network has")
}

func TestPrivateIndex(t *testing.T) {
	isolate(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "joe" || password != "s3cret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		index(w, r)
	}))
	defer s.Close()
	dir := project(t, map[string]string{"requirements.txt": "alpha"})
	t.Setenv("PIP_INDEX_URL", strings.Replace(s.URL, "://", "://joe:s3cret@", 1)+"/simple")
	text, wheels := locked(t, Request{Dir: dir, Python: "3.11"}, lock.Selection{})
	require.Equal(t, []string{"alpha 2.0", "beta 2.0"}, names(wheels))
	require.NotContains(t, text, "s3cret", "a lock is committed")

	t.Setenv("PIP_INDEX_URL", strings.Replace(s.URL, "://", "://joe:wr0ng@", 1)+"/simple")
	t.Setenv("UV_NO_CACHE", "1")
	_, err := try(t, Request{Dir: dir, Python: "3.11"})
	require.ErrorIs(t, err, ErrResolve)
	require.NotContains(t, err.Error(), "wr0ng")
}

// TestPathsAreRelativeToTheLock: uv writes them relative to its output, which is elsewhere.
func TestPathsAreRelativeToTheLock(t *testing.T) {
	indexed(t)
	rel := releases[1]
	dir := project(t, map[string]string{
		"vendored wheels/" + rel.filename(): string(rel.wheel()),
		"requirements.txt":                  "./vendored wheels/" + rel.filename() + "\n",
	})
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	for _, d := range []string{dir, link} {
		text, wheels := locked(t, Request{Dir: d, Python: "3.11"}, lock.Selection{})
		require.Equal(t, []string{"alpha 2.0", "beta 2.0"}, names(wheels))
		require.Equal(t, "vendored wheels/"+rel.filename(), wheels[0].Path)
		require.NotContains(t, text, "../")
	}
}

func TestRelocate(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "state/x"), 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "project"), 0o700))
	in := `archive = { path = "../../project/a \"b\".whl", hashes = {} }
wheels = [{ path = "/abs/c.whl" }, { path = "../../lib/d.whl" }, { url = "file:///e.whl" }]
name = "{ path = \"../x\" }"
`
	got, err := relocate([]byte(in), filepath.Join(root, "state/x"), filepath.Join(root, "project"))
	require.NoError(t, err)
	require.Equal(t, `archive = { path = "a \"b\".whl", hashes = {} }
wheels = [{ path = "/abs/c.whl" }, { path = "../lib/d.whl" }, { url = "file:///e.whl" }]
name = "{ path = \"../x\" }"
`, string(got))
}
