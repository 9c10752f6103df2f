package examples

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// action is a composite action of GitHub's.
type action struct {
	Inputs map[string]struct {
		Description string
		Default     string
	}
	Outputs map[string]struct {
		Description string
		Value       string
	}
	Runs struct {
		Using string
		Steps []struct {
			ID    string `yaml:"id"`
			Shell string
			Env   map[string]string
			Run   string
		}
	}
}

func readAction(t *testing.T) *action {
	b, err := os.ReadFile("../rules/github/action.yml")
	require.NoError(t, err)
	var a action
	require.NoError(t, yaml.Unmarshal(b, &a))
	require.Equal(t, "composite", a.Runs.Using)
	return &a
}

var expression = regexp.MustCompile(`\$\{\{\s*([\w.-]+)\s*\}\}`)

// github is what a job's event says.
type github struct {
	event, ref, refType, sha string
	payload                  map[string]any
	inputs                   map[string]string
	env                      map[string]string // of the job
}

// run runs the action as GitHub's runner does: each step's script by bash, with the job's variables and files.
func (f *forge) github(g github) *job {
	f.t.Helper()
	a, temp := readAction(f.t), f.t.TempDir()
	payload, err := json.Marshal(g.payload)
	require.NoError(f.t, err)
	require.NoError(f.t, os.WriteFile(filepath.Join(temp, "event.json"), payload, 0o644))
	env := f.machine()
	for name, value := range map[string]string{
		"GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_EVENT_NAME": g.event, "GITHUB_REF_NAME": g.ref, "GITHUB_REF_TYPE": g.refType,
		"GITHUB_SHA": g.sha, "GITHUB_REPOSITORY": "org/app", "GITHUB_REPOSITORY_ID": repositoryID,
		"GITHUB_SERVER_URL": "https://github.example", "GITHUB_RUN_ID": "42", "GITHUB_WORKSPACE": f.checkout,
		"GITHUB_EVENT_PATH": filepath.Join(temp, "event.json"), "GITHUB_PATH": filepath.Join(temp, "path"), "RUNNER_TEMP": temp,
		"ACTIONS_ID_TOKEN_REQUEST_URL": f.tokens.URL + "/token?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
		"GITHUB_STEP_SUMMARY": filepath.Join(temp, "summary"),
	} {
		env[name] = value
	}
	for name, value := range g.env {
		env[name] = value
	}
	j := &job{outputs: map[string]string{}}
	steps := map[string]map[string]string{}
	for _, s := range a.Runs.Steps {
		require.Equal(f.t, "bash", s.Shell)
		require.NotContains(f.t, s.Run, "${{", "an input in a script's text could be a script")
		if added := strings.TrimSpace(readString(env["GITHUB_PATH"])); added != "" {
			env["PATH"] = added + ":" + env["PATH"]
		}
		stepEnv := map[string]string{"GITHUB_OUTPUT": filepath.Join(temp, s.ID+".out")}
		for name, value := range env {
			stepEnv[name] = value
		}
		for name, value := range s.Env {
			stepEnv[name] = expression.ReplaceAllStringFunc(value, func(e string) string {
				input, ok := strings.CutPrefix(expression.FindStringSubmatch(e)[1], "inputs.")
				declared, known := a.Inputs[input]
				require.True(f.t, ok && known, "%s names no input", e)
				if v, given := g.inputs[input]; given {
					return v
				}
				return declared.Default
			})
		}
		log, code := f.bash(s.Run, stepEnv, f.checkout)
		j.log += log
		steps[s.ID] = heredocs(f.t, readString(stepEnv["GITHUB_OUTPUT"]))
		if j.code = code; code != 0 {
			break
		}
	}
	for name, o := range a.Outputs {
		parts := strings.SplitN(expression.FindStringSubmatch(o.Value)[1], ".", 4) // steps.ID.outputs.NAME
		j.outputs[name] = steps[parts[1]][parts[3]]
	}
	j.summary, j.comment = readString(env["GITHUB_STEP_SUMMARY"]), readString(j.outputs["comment-file"])
	if report := readString(filepath.Join(temp, "pexpress-ci", "report.json")); report != "" {
		require.NoError(f.t, json.Unmarshal([]byte(report), &j.report))
	}
	return j
}

var repository = map[string]any{"default_branch": "main"}

// pushed runs the action for a push.
func (f *forge) pushed(branch, sha string) *job {
	f.claims = map[string]any{"ref_protected": "true"}
	return f.github(github{
		event: "push", ref: branch, refType: "branch", sha: sha, payload: map[string]any{"repository": repository},
		inputs: map[string]string{"cache": f.remote, "codeserver": f.socket()},
	})
}

// pull runs the action for a pull request from a repository.
func (f *forge) pull(branch, sha, from string, env map[string]string) *job {
	f.claims = map[string]any{"ref_protected": "false"}
	return f.github(github{
		event: "pull_request", ref: "7/merge", refType: "branch", sha: strings.Repeat("0", 40), env: env,
		payload: map[string]any{
			"number": 7, "repository": repository,
			"pull_request": map[string]any{"head": map[string]any{"sha": sha, "ref": branch, "repo": map[string]any{"full_name": from}}},
		},
		inputs: map[string]string{"cache": f.remote, "codeserver": f.socket()},
	})
}

// deleted runs the action for a deleted branch.
func (f *forge) deleted(branch string) *job {
	f.claims = map[string]any{"ref_protected": "true"}
	return f.github(github{
		event: "delete", ref: "main", refType: "branch", sha: f.git("rev-parse", "main"),
		payload: map[string]any{"ref": branch, "ref_type": "branch", "repository": repository},
		inputs:  map[string]string{"cache": f.remote, "codeserver": f.socket()},
	})
}
