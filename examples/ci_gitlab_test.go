package examples

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/pexpress/pexpress/plugin/ci"
)

// gitlabJob is a job of the template, with what it extends.
type gitlabJob struct {
	Extends      string
	Variables    map[string]string
	IDTokens     map[string]struct{ Aud string } `yaml:"id_tokens"`
	BeforeScript []string                        `yaml:"before_script"`
	Script       []string
	Rules        []struct{ If, When string }
	Environment  struct {
		Name, URL, Action string
		OnStop            string `yaml:"on_stop"`
	}
	Artifacts struct {
		Paths   []string
		Reports map[string]string
	}
}

// readTemplate returns a job of the template, merged as GitLab merges `extends`.
func readTemplate(t *testing.T, name string) *gitlabJob {
	b, err := os.ReadFile("../rules/gitlab/pexpress.gitlab-ci.yml")
	require.NoError(t, err)
	var all map[string]*gitlabJob
	require.NoError(t, yaml.Unmarshal(b, &all))
	j := all[name]
	require.NotNil(t, j, "the template has no job %s", name)
	base := all[j.Extends]
	require.NotNil(t, base)
	variables := map[string]string{}
	for _, vs := range []map[string]string{base.Variables, j.Variables} {
		for k, v := range vs {
			variables[k] = v
		}
	}
	j.Variables, j.IDTokens, j.BeforeScript, j.Script, j.Artifacts = variables, base.IDTokens, base.BeforeScript, base.Script, base.Artifacts
	if j.Environment.OnStop != "" {
		require.Equal(t, "stop", all[j.Environment.OnStop].Environment.Action, "on_stop names the job that stops")
		require.Equal(t, j.Environment.Name, all[j.Environment.OnStop].Environment.Name)
	}
	return j
}

// gitlab runs a job of the template as GitLab's runner does.
func (f *forge) gitlab(name string, variables map[string]string) *job {
	f.t.Helper()
	template := readTemplate(f.t, name)
	env := f.machine()
	for k, v := range map[string]string{
		"GITLAB_CI": "true", "CI": "true", "CI_PROJECT_ID": repositoryID, "CI_PROJECT_DIR": f.checkout, "CI_DEFAULT_BRANCH": "main",
		"CI_JOB_URL": "https://gitlab.example/job/1", "PEXPRESS_CACHE": f.remote, "PEXPRESS_CODESERVER": f.socket(),
		"CI_ENVIRONMENT_ACTION": template.Environment.Action,
	} {
		env[k] = v
	}
	for k, v := range template.Variables {
		env[k] = v
	}
	for k, v := range variables {
		env[k] = v
	}
	for k, token := range template.IDTokens {
		claims := map[string]any{"aud": token.Aud}
		for c, v := range f.claims {
			claims[c] = v
		}
		env[k] = f.issuer.Sign(f.t, time.Now(), claims)
	}
	j := &job{}
	j.log, j.code = f.bash(strings.Join(append(template.BeforeScript, template.Script...), "\n"), env, f.checkout)
	require.Equal(f.t, []string{"pexpress-ci/"}, template.Artifacts.Paths)
	j.summary, j.comment = readString(filepath.Join(f.checkout, "pexpress-ci", "summary.md")), readString(filepath.Join(f.checkout, "pexpress-ci", "comment.md"))
	j.outputs = map[string]string{}
	for line := range strings.Lines(readString(filepath.Join(f.checkout, template.Artifacts.Reports["dotenv"]))) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		j.outputs[k] = v
	}
	return j
}

// TestCIGitLab runs the template's jobs: pushes, a branch and its end, a merge request, a failure.
func TestCIGitLab(t *testing.T) {
	f := newForge(t)
	f.claims = map[string]any{"ref_protected": "true"}
	push := func(branch string) *job {
		return f.gitlab("pexpress", map[string]string{"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": branch, "CI_COMMIT_SHA": f.push(branch)})
	}
	j := push("main")
	require.Zero(t, j.code, "%s", j)
	require.Equal(t, "full", j.outputs["PEXPRESS_KIND"], "%s", j)
	require.Equal(t, "one", f.get(f.locations()["web"], "/"))
	require.Contains(t, j.log, "section_start:")
	require.Contains(t, j.log, "section_end:")
	source := j.outputs["PEXPRESS_SOURCE_DIGEST"]
	require.NotEmpty(t, source)
	again := f.gitlab("pexpress", map[string]string{"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main", "CI_COMMIT_SHA": f.git("rev-parse", "HEAD")})
	require.Equal(t, source, again.outputs["PEXPRESS_SOURCE_DIGEST"], "the report in the checkout is no part of source.pex")
	require.Equal(t, "unchanged", again.outputs["PEXPRESS_KIND"])

	f.write("web/word.py", "WORD = \"two\"\n")
	branch := push("topic")
	require.Equal(t, "fast", branch.outputs["PEXPRESS_KIND"], "%s", branch)
	name := ci.BranchName("web", repositoryID, "topic")
	require.Equal(t, "http://"+f.locations()[name], branch.outputs["PEXPRESS_URL"])

	f.claims = map[string]any{"ref_protected": "false"}
	request := map[string]string{
		"CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "7", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "topic",
		"CI_MERGE_REQUEST_SOURCE_PROJECT_ID": repositoryID, "CI_MERGE_REQUEST_PROJECT_ID": repositoryID, "CI_COMMIT_SHA": f.git("rev-parse", "HEAD"),
	}
	merge := f.gitlab("pexpress-merge-request", request)
	require.Zero(t, merge.code, "%s", merge)
	require.Equal(t, "built", merge.outputs["PEXPRESS_KIND"])
	require.Contains(t, merge.log, "/pr-7")
	require.Contains(t, merge.comment, branch.outputs["PEXPRESS_URL"])
	request["CI_MERGE_REQUEST_SOURCE_PROJECT_ID"] = "666"
	require.Contains(t, f.gitlab("pexpress-merge-request", request).log, "goes on with the cache of this machine's disk", "a fork shows no token")

	f.claims = map[string]any{"ref_protected": "true"}
	gone := f.gitlab("pexpress-remove", map[string]string{"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "topic", "CI_COMMIT_SHA": f.git("rev-parse", "HEAD")})
	require.Zero(t, gone.code, "%s", gone)
	require.NotContains(t, f.locations(), name)
	require.Contains(t, f.locations(), "web")

	f.git("checkout", "-q", "main")
	f.write("web/word.py", "raise RuntimeError('no good')\n")
	bad := push("main")
	require.Equal(t, 5, bad.code, "%s", bad)
	require.Contains(t, bad.log, "error: web/word.py:1: pexpress: location web")
	var findings []struct {
		Description string
		Location    struct {
			Path  string
			Lines struct{ Begin int }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(readString(filepath.Join(f.checkout, "pexpress-ci", "code-quality.json"))), &findings))
	require.Len(t, findings, 1)
	require.Equal(t, "web/word.py", findings[0].Location.Path)
	require.Contains(t, findings[0].Description, "RuntimeError: no good")
}
