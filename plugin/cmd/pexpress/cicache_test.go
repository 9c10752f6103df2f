package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/plugin/ci"
	"github.com/pexpress/pexpress/plugin/project"
)

// TestTokenIsOld asks for a new token when the build has outlasted the one it began with, and for no other.
func TestTokenIsOld(t *testing.T) {
	for name, test := range map[string]struct {
		age    time.Duration // 0 for a token that is not the run's own
		system ci.System
		shared bool
		want   bool
	}{
		"old":               {time.Hour, ci.GitHub, true, true},
		"new":               {time.Second, ci.GitHub, true, false},
		"somebody's secret": {0, ci.GitHub, true, false},
		"made before":       {time.Hour, ci.GitLab, true, false},
		"on the disk":       {time.Hour, ci.GitHub, false, false},
	} {
		j := &ciJob{run: &ci.Run{System: test.system}, shared: test.shared}
		if test.age > 0 {
			j.tokenAt = time.Now().Add(-test.age)
		}
		require.Equal(t, test.want, j.tokenIsOld(), name)
	}
}

// TestForkCredentials has a fork's pull request find credentials: whatever the cache is, none are left.
func TestForkCredentials(t *testing.T) {
	for address, want := range map[string]string{
		"/var/cache/pexpress":                 "/var/cache/pexpress",
		"https://name:password@cache/main":    "https://cache/pr-7",
		"grpcs://cache.example.com:8980/main": "grpcs://cache.example.com:8980/pr-7",
	} {
		for _, name := range cacheCredentials {
			t.Setenv(name, "secret")
		}
		a := &app{cache: address, cacheChosen: true, home: t.TempDir(), ui: newUI(false, t.Output(), t.Output())}
		j := &ciJob{
			app: a, opts: ciOptions{overlay: "pr-{number}"}, shared: true, out: t.Output(), report: &ci.Report{},
			run: &ci.Run{System: ci.GitHub, Event: ci.PullRequest, Number: 7, Fork: true},
		}
		require.NoError(t, j.chooseCache(&project.Project{}))
		require.Equal(t, want, a.cache)
		for _, name := range cacheCredentials {
			_, ok := os.LookupEnv(name)
			require.False(t, ok, "%s, with the cache %s", name, address)
		}
	}
}

// TestURLOf makes links of a branch's name, which its author chose.
func TestURLOf(t *testing.T) {
	j := &ciJob{opts: ciOptions{url: "https://{branch}.example.com/{location}"}, run: &ci.Run{Branch: "evil.example/x?y#z"}}
	require.Equal(t, "https://evil.example%2Fx%3Fy%23z.example.com/web", j.urlOf(&ci.Location{As: "web"}))
}

// TestCacheIsAway tells a cache that cannot be used from what else fails, whatever its words.
func TestCacheIsAway(t *testing.T) {
	j := &ciJob{app: &app{cache: "grpcs://cache:8980/main"}, run: &ci.Run{Event: ci.Push}}
	require.True(t, j.cacheIsAway(errors.New("store: cache grpcs://cache:8980/main: nothing listens there")))
	require.True(t, j.cacheIsAway(unavailableError{cacheError{errors.New("open the cache: no such authority")}}))
	require.False(t, j.cacheIsAway(unavailableError{errors.New("the index says: cache miss")}))
	require.False(t, j.cacheIsAway(inputError{errors.New("pylock.toml: no wheel for the cache server")}))
	j.app.cache = "/a/directory"
	require.False(t, j.cacheIsAway(unavailableError{cacheError{errors.New("disk full")}}))
}
