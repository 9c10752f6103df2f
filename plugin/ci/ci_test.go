package ci

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
)

func environment(vars map[string]string) Env { return func(name string) string { return vars[name] } }

func TestDetect(t *testing.T) {
	github := func(more map[string]string) map[string]string {
		vars := map[string]string{
			"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "push", "GITHUB_REF_NAME": "topic", "GITHUB_REF_TYPE": "branch", "GITHUB_SHA": "abc",
			"GITHUB_REPOSITORY": "org/app", "GITHUB_REPOSITORY_ID": "1", "GITHUB_EVENT_PATH": "event",
		}
		for k, v := range more {
			vars[k] = v
		}
		return vars
	}
	pull := map[string]string{"GITHUB_EVENT_NAME": "pull_request"}
	for name, test := range map[string]struct {
		vars  map[string]string
		event string
		want  Run
		err   string
	}{
		"push":              {github(nil), `{"repository": {"default_branch": "main"}}`, Run{Event: Push, Branch: "topic", Production: "main", Commit: "abc"}, ""},
		"tag":               {github(map[string]string{"GITHUB_REF_TYPE": "tag"}), `{}`, Run{}, "not about a branch"},
		"pull request":      {github(pull), `{"number": 3, "pull_request": {"head": {"sha": "def", "ref": "topic", "repo": {"full_name": "org/app"}}}}`, Run{Event: PullRequest, Branch: "topic", Commit: "def", Number: 3}, ""},
		"fork":              {github(pull), `{"number": 3, "pull_request": {"head": {"ref": "main", "repo": {"full_name": "evil/app"}}}}`, Run{Event: PullRequest, Branch: "main", Commit: "abc", Number: 3, Fork: true}, ""},
		"fork that is gone": {github(pull), `{"number": 3, "pull_request": {"head": {"ref": "main", "repo": null}}}`, Run{Event: PullRequest, Branch: "main", Commit: "abc", Number: 3, Fork: true}, ""},
		"no number":         {github(pull), `{"pull_request": {"head": {"sha": "def", "ref": "topic", "repo": {"full_name": "org/app"}}}}`, Run{}, "no number"},
		"a number below 0":  {github(pull), `{"number": -7, "pull_request": {"head": {"ref": "topic", "repo": {"full_name": "org/app"}}}}`, Run{}, "no number"},
		"nobody's pull request": {
			github(map[string]string{"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REPOSITORY": ""}), `{"number": 3, "pull_request": {"head": {"ref": "main", "repo": {}}}}`,
			Run{Event: PullRequest, Branch: "main", Commit: "abc", Number: 3, Fork: true},
			"",
		},
		"target":           {github(map[string]string{"GITHUB_EVENT_NAME": "pull_request_target"}), `{}`, Run{}, "secrets"},
		"deleted branch":   {github(map[string]string{"GITHUB_EVENT_NAME": "delete"}), `{"ref": "topic", "ref_type": "branch"}`, Run{Event: Deleted, Branch: "topic", Commit: "abc"}, ""},
		"deleted tag":      {github(map[string]string{"GITHUB_EVENT_NAME": "delete"}), `{"ref": "v1", "ref_type": "tag"}`, Run{}, "not about a branch"},
		"nonsense":         {github(nil), `{`, Run{}, "GITHUB_EVENT_PATH"},
		"a person's shell": {nil, "", Run{}, "pexpress deploy"},
		"stopped": {
			map[string]string{"GITLAB_CI": "true", "CI_ENVIRONMENT_ACTION": "stop", "CI_COMMIT_REF_NAME": "topic", "CI_DEFAULT_BRANCH": "main"},
			"",
			Run{Event: Deleted, Branch: "topic", Production: "main", Stopped: true},
			"",
		},
		"a fork's stop": {
			map[string]string{
				"GITLAB_CI": "true", "CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "9", "CI_PROJECT_ID": "1",
				"CI_MERGE_REQUEST_PROJECT_ID": "1", "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "topic",
				"CI_ENVIRONMENT_ACTION": "stop",
			},
			"",
			Run{},
			"ends no deployment",
		},
		"a merge request without projects": {
			map[string]string{"GITLAB_CI": "true", "CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "9"},
			"",
			Run{Event: PullRequest, Number: 9, Fork: true},
			"",
		},
		"a fork's own pipeline": {
			map[string]string{
				"GITLAB_CI": "true", "CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "9", "CI_PROJECT_ID": "2",
				"CI_MERGE_REQUEST_PROJECT_ID": "1", "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "topic",
			},
			"",
			Run{Event: PullRequest, Branch: "topic", Number: 9, Fork: true},
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Detect(environment(test.vars), func(string) ([]byte, error) { return []byte(test.event), nil })
			if test.err != "" {
				require.ErrorContains(t, err, test.err)
				return
			}
			require.NoError(t, err)
			got.System, got.URL, got.Repository = "", "", ""
			require.Equal(t, test.want, *got)
		})
	}
}

var allowed = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// TestBranchName checks that names are ones that a codeserver takes, and that no two branches share one.
func TestBranchName(t *testing.T) {
	require.Equal(t, "web.feature-x-76511eefc6", BranchName("web", "1", "feature/x"), "names of what is deployed must not change")
	seen := map[string]string{}
	for _, location := range []string{"web", "a-b", "a", strings.Repeat("long", 15), strings.Repeat("long", 15) + "x", "web.x"} {
		for _, branch := range []string{"feature/x", "feature-x", "Feature-X", "b-c", "c", "日本", "日本語", "..", "-", strings.Repeat("x", 300), strings.Repeat("x", 301)} {
			for _, repository := range []string{"1", "2"} {
				name, key := BranchName(location, repository, branch), fmt.Sprintln(location, repository, branch)
				require.Regexp(t, allowed, name)
				require.Empty(t, seen[name], "%s is also %s", key, name)
				seen[name] = key
				require.True(t, strings.HasSuffix(name, BranchSuffix(repository, branch)))
			}
		}
	}
}

func TestOverlay(t *testing.T) {
	for address, want := range map[string]string{
		"grpcs://cache:8980/main": "grpcs://cache:8980/pr-7", "grpc://cache:8980": "grpc://cache:8980/pr-7",
		"https://cache/main": "https://cache/pr-7", "s3://bucket/prefix?instance=main": "", "unix:///socket": "", "/var/cache": "",
	} {
		got, ok, err := Overlay(address, "pr-{number}", 7)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, want != "", ok)
	}
}

func TestAnnotate(t *testing.T) {
	workspace := t.TempDir()
	project := filepath.Join(workspace, "svc")
	require.NoError(t, os.MkdirAll(filepath.Join(project, "app"), 0o755))
	for _, name := range []string{"pyproject.toml", "pylock.toml", "app/main.py"} {
		require.NoError(t, os.WriteFile(filepath.Join(project, name), nil, 0o644))
	}
	served := "/state/store/trees/" + strings.Repeat("a", 64) + "-source/"
	for message, want := range map[string]Annotation{
		"pyproject.toml:12: preset must be":                                                                         {File: "svc/pyproject.toml", Line: 12},
		"location web: " + project + "/pylock.toml: no wheel of x":                                                  {File: "svc/pylock.toml"},
		"File \"" + served + "app/main.py\", line 7, in <module>\n  File \"/usr/lib/python3.11/json.py\", line 3\n": {File: "svc/app/main.py", Line: 7},
		"/etc/hosts.txt: is not ours":                                                                               {File: "svc/pyproject.toml"},
		"nothing listens there":                                                                                     {File: "svc/pyproject.toml"},
		"../outside.toml:3: is no path in":                                                                          {File: "svc/pyproject.toml"},
	} {
		got := Annotate(workspace, project, "title", message)
		require.Equal(t, want.File, got.File, message)
		require.Equal(t, want.Line, got.Line, message)
	}
	a := Annotation{Level: "error", File: "a,b:c.py", Line: 3, Title: "x", Message: "50%\nand more"}
	require.Equal(t, "::error file=a%2Cb%3Ac.py,line=3,title=x::50%25%0Aand more", a.Command())
	require.NotRegexp(t, `(?m)^\s*::`, Plain("x\n::error::y"))
}

// TestMarkdown writes what others have named into the report.
func TestMarkdown(t *testing.T) {
	deps, source := digest.FromBytes([]byte("deps")), digest.FromBytes([]byte("source"))
	r := &Report{
		Run: &Run{Branch: "a`b|c <img>", Number: 3, URL: "https://ci"}, Took: 1500 * time.Millisecond,
		Locations: []*Location{{
			Name: "web", As: "web.a", Kind: Fast, URL: "https://web>(x)", Error: "log\n```\n# no heading",
			Outputs: []Output{{Name: "deps.pex", Digest: deps, Hit: true}, {Name: "source.pex", Digest: source}}, Blobs: 2, Bytes: 2048,
		}},
	}
	s := r.Summary()
	require.Contains(t, s, "``a`b\\|c <img>`` (#3) · fast deploy, only source.pex was shipped · 1.5 s")
	require.Contains(t, s, "````text\nlog\n```\n# no heading\n````")
	require.Contains(t, s, "2 new blobs, 2.0 KiB")
	require.Contains(t, s, "| deps.pex | `"+deps.String()+"` | from the cache")
	require.Contains(t, r.Comment(), "(source.pex `"+source.Short()+"`, deps.pex `"+deps.Short()+"`)")
	require.Contains(t, r.Comment(), "(<https://web(x)>)")
	require.Equal(t, Failed, (&Report{Run: r.Run, Locations: r.Locations, Error: "x"}).Kind())
	require.Equal(t, Nothing, (&Report{Run: r.Run}).Kind())
	require.Contains(t, (&Report{Run: r.Run}).Summary(), "nothing to remove")
}

// TestHead has git fail and hang: nobody is asked for a password, and a helper that git started does not keep a job.
func TestHead(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	script := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	}
	script(`echo "prompts=$GIT_TERMINAL_PROMPT for $2 $3" >&2; exit 1`)
	_, err := Head(t.Context(), ".", "--upload-pack=x")
	require.ErrorIs(t, err, ErrHead)
	require.ErrorContains(t, err, "prompts=0 for origin refs/heads/--upload-pack=x")

	fifo := filepath.Join(bin, "pid")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	script("sleep 3600 >&2 & echo $! > " + fifo + "; wait")
	ctx, cancel := context.WithCancel(t.Context())
	helper := 0
	go func() {
		defer cancel()
		content, _ := os.ReadFile(fifo) // there when git is
		helper, _ = strconv.Atoi(strings.TrimSpace(string(content)))
	}()
	_, err = Head(ctx, ".", "main")
	require.ErrorIs(t, err, ErrHead)
	require.Positive(t, helper)
	require.Eventually(t, func() bool { return dead(helper) }, time.Minute, time.Millisecond, "git's helper was not ended")
}

// dead reports whether there is no such process, or what is left of it waits for its parent only.
func dead(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}
