package ci

import (
	"fmt"
	"strconv"
)

// detectGitLab reads the predefined variables. https://docs.gitlab.com/ci/variables/predefined_variables/
func detectGitLab(env Env) (*Run, error) {
	r := &Run{
		System: GitLab, Event: Push, Repository: first(env("CI_PROJECT_ID"), env("CI_PROJECT_PATH")),
		Branch: env("CI_COMMIT_BRANCH"), Production: env("CI_DEFAULT_BRANCH"), Commit: env("CI_COMMIT_SHA"),
		URL: first(env("CI_JOB_URL"), env("CI_PIPELINE_URL")), Workspace: env("CI_PROJECT_DIR"),
	}
	if env("CI_PIPELINE_SOURCE") == "merge_request_event" {
		n, err := strconv.Atoi(env("CI_MERGE_REQUEST_IID"))
		if err != nil {
			return nil, fmt.Errorf("CI_MERGE_REQUEST_IID: %w", err)
		}
		r.Event, r.Number, r.Branch = PullRequest, n, env("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME")
		r.Commit = first(env("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA"), r.Commit)
		// A pipeline that runs in the fork has the fork's variables, and no project but its own.
		own := env("CI_PROJECT_ID")
		r.Fork = own == "" || env("CI_MERGE_REQUEST_SOURCE_PROJECT_ID") != own || env("CI_MERGE_REQUEST_PROJECT_ID") != own
	}
	// The job that GitLab runs when an environment is stopped, by itself when its branch is deleted.
	if env("CI_ENVIRONMENT_ACTION") == "stop" {
		r.Event, r.Stopped = Deleted, true
		r.Branch = first(r.Branch, env("CI_COMMIT_REF_NAME"))
	}
	return r, nil
}
