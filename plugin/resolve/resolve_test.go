package resolve

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/plugin/fetch"
	"github.com/pexpress/pexpress/plugin/lock"
)

var none lock.Selection

func TestRequirements(t *testing.T) {
	indexed(t)
	dir := project(t, map[string]string{
		"requirements.txt": "-r more/base.txt\n-c pins.txt\ngamma\n", "more/base.txt": "Alpha >= 1 # a comment\n", "pins.txt": "beta<2\nalpha<2\nnever==1\n",
	})
	text, wheels := locked(t, Request{Dir: dir, Python: "3.11", Platforms: []string{lock.DefaultPlatform}}, none)
	require.Equal(t, []string{"alpha 1.0", "beta 1.0", "gamma 1.0"}, names(wheels))
	for i, rel := range []release{releases[0], releases[2], releases[4]} {
		require.Len(t, wheels[i].SHA256, 64)
		require.Equal(t, int64(len(rel.wheel())), wheels[i].Size)
	}
	require.NotContains(t, text, state, "nothing of this machine stands in a lock")

	again, _ := locked(t, Request{Dir: dir, Python: "3.11", Platforms: []string{lock.DefaultPlatform}}, none)
	require.Equal(t, text, again)
}

func TestSeveralInputs(t *testing.T) {
	indexed(t)
	dir := project(t, map[string]string{"a.in": "gamma", "b.in": "beta", "requirements.txt": "alpha"})
	_, wheels := locked(t, Request{Dir: dir, Inputs: []string{"a.in", "b.in"}, Python: "3.11"}, none)
	require.Equal(t, []string{"beta 2.0", "gamma 1.0"}, names(wheels))
	_, err := try(t, Request{Dir: dir, Inputs: []string{"gone.in"}})
	require.ErrorIs(t, err, ErrResolve)
	require.ErrorContains(t, err, "gone.in")
}

const pyproject = `[project]
name = "p"
version = "1"
requires-python = ">=3.11"
dependencies = ["gamma"]
[project.optional-dependencies]
more = ["beta<2"]
[dependency-groups]
extra-group = ["delta"]
dev = ["alpha"]
`

func TestPyproject(t *testing.T) {
	indexed(t)
	dir := project(t, map[string]string{"pyproject.toml": pyproject, "requirements.txt": "alpha"})
	_, wheels := locked(t, Request{Dir: dir, Python: "3.11"}, none)
	require.Equal(t, []string{"gamma 1.0"}, names(wheels))
	_, wheels = locked(t, Request{Dir: dir, Python: "3.11", Extras: []string{"more"}, Groups: []string{"extra-group"}}, none)
	require.Equal(t, []string{"beta 1.0", "delta 1.0", "gamma 1.0"}, names(wheels))
	_, err := try(t, Request{Dir: dir, Python: "3.11", Groups: []string{"gone"}})
	require.ErrorIs(t, err, ErrResolve)
	require.ErrorContains(t, err, "gone", "uv says why")
}

func TestUVLock(t *testing.T) {
	indexed(t)
	dir := project(t, map[string]string{"pyproject.toml": pyproject, "sub/keep": ""})
	require.NoError(t, uv(t, dir, "lock"))
	kept, err := os.ReadFile(filepath.Join(dir, "uv.lock"))
	require.NoError(t, err)
	_, wheels := locked(t, Request{Dir: dir, Extras: []string{"more"}}, lock.Selection{})
	require.Contains(t, names(wheels), "gamma 1.0")
	require.Contains(t, names(wheels), "beta 1.0")
	require.NotContains(t, names(wheels), "alpha 2.0", "the group dev is taken when it is asked for")
	_, wheels = locked(t, Request{Dir: filepath.Join(dir, "sub"), Inputs: []string{"../uv.lock"}}, none)
	require.Equal(t, []string{"gamma 1.0"}, names(wheels), "the uv.lock that is named is the one that is read")

	stale := project(t, map[string]string{"pyproject.toml": strings.Replace(pyproject, `"gamma"`, `"gamma<3"`, 1), "uv.lock": string(kept)})
	_, err = try(t, Request{Dir: stale})
	require.ErrorIs(t, err, ErrResolve)
	require.ErrorContains(t, err, "needs to be updated")
}

// uv runs uv itself.
func uv(t *testing.T, dir string, args ...string) error {
	f, err := fetch.New(memory.New(), fetch.Options{StateDir: state})
	require.NoError(t, err)
	program, err := tool(t.Context(), f, state)
	require.NoError(t, err)
	return run(t.Context(), program, Request{Dir: dir, Fetcher: f}, append(args, "--quiet"))
}

func TestVersionsAreKept(t *testing.T) {
	indexed(t)
	dir := project(t, map[string]string{"requirements.txt": "alpha<2\nbeta<2"})
	r := Request{Dir: dir, Output: "pylock.app.toml", Python: "3.11", Platforms: []string{lock.DefaultPlatform}}
	lockFile := filepath.Join(dir, r.Output)
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	text, wheels := locked(t, r, none)
	require.Equal(t, []string{"alpha 1.0", "beta 1.0"}, names(wheels))
	require.NoFileExists(t, lockFile, "the lock is returned, not written")

	write(r.Output, text)
	write("requirements.txt", "alpha\nbeta\ngamma")
	_, wheels = locked(t, r, none)
	require.Equal(t, []string{"alpha 1.0", "beta 1.0", "gamma 1.0"}, names(wheels), "another requirement moves none of the others")
	universal := r
	universal.Platforms = nil
	_, wheels = locked(t, universal, none)
	require.Equal(t, []string{"alpha 1.0", "beta 1.0", "gamma 1.0"}, names(wheels))

	upgrade := r
	upgrade.Upgrade = true
	_, wheels = locked(t, upgrade, none)
	require.Equal(t, []string{"alpha 2.0", "beta 2.0", "gamma 1.0"}, names(wheels))

	write("requirements.txt", "alpha>1\nbeta")
	_, wheels = locked(t, r, none)
	require.Equal(t, []string{"alpha 2.0", "beta 1.0"}, names(wheels), "a version that is ruled out moves, and it alone")

	write(r.Output, strings.ReplaceAll(text, "\nversion = \"1.0\"", "\nversion = \"0.9\""))
	_, wheels = locked(t, r, none)
	require.Equal(t, []string{"alpha 2.0", "beta 2.0"}, names(wheels), "as one does that the index no longer has")
}

func TestDamagedLockIsNoHindrance(t *testing.T) {
	indexed(t)
	dir := project(t, map[string]string{"requirements.txt": "beta", "pylock.toml": "<<<<<<< HEAD\n"})
	_, err := try(t, Request{Dir: dir, Output: "pylock.toml", Python: "3.11"})
	require.ErrorIs(t, err, ErrResolve)
	_, wheels := locked(t, Request{Dir: dir, Output: "pylock.toml", Python: "3.11", Upgrade: true}, none)
	require.Equal(t, []string{"beta 2.0"}, names(wheels))
}

func TestPythonAndPlatform(t *testing.T) {
	indexed(t)
	dir := project(t, map[string]string{"requirements.txt": "gamma\ndelta"})
	text, wheels := locked(t, Request{Dir: dir, Python: "3.11", Platforms: []string{lock.DefaultPlatform}}, none)
	require.Equal(t, []string{"delta 1.0", "gamma 1.0"}, names(wheels))
	require.NotContains(t, text, `"beta"`, "Windows is not asked for")
	text, _ = locked(t, Request{Dir: dir, Python: "3.11", Platforms: []string{lock.DefaultPlatform, "win_amd64"}}, none)
	require.Contains(t, text, `"beta"`)
	b, err := try(t, Request{Dir: dir, Python: "3.12", Platforms: []string{lock.DefaultPlatform}})
	require.NoError(t, err)
	require.Contains(t, string(b), "gamma-2.0")
}

func TestUVPlatform(t *testing.T) {
	for platform, want := range map[string]string{
		lock.DefaultPlatform: "x86_64-manylinux_2_28", "manylinux_2_17_aarch64": "aarch64-manylinux_2_17",
		"manylinux_2_5_x86_64": "", "macosx_11_0_arm64": "", "musllinux_1_2_x86_64": "", "": "",
	} {
		require.Equal(t, want, uvPlatform([]string{platform}), platform)
	}
	require.Empty(t, uvPlatform(nil))
	require.Empty(t, uvPlatform([]string{lock.DefaultPlatform, lock.DefaultPlatform}))
}

func TestUnsatisfiable(t *testing.T) {
	indexed(t)
	for _, line := range []string{"alpha>3", "gone", "alpha<2\nalpha>1", "not a requirement !"} {
		dir := project(t, map[string]string{"requirements.txt": line})
		_, err := try(t, Request{Dir: dir, Python: "3.11"})
		require.ErrorIs(t, err, ErrResolve, line)
		require.ErrorContains(t, err, "what it says is above")
	}
}

func TestCancelled(t *testing.T) {
	indexed(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	defer s.Close()
	t.Setenv("PIP_INDEX_URL", s.URL)
	t.Setenv("UV_NO_CACHE", "1")
	f, err := fetch.New(memory.New(), fetch.Options{StateDir: state})
	require.NoError(t, err)
	dir := project(t, map[string]string{"requirements.txt": "alpha"})
	_, err = Lock(ctx, Request{Dir: dir, Fetcher: f, StateDir: state})
	require.ErrorIs(t, err, context.Canceled)
}
