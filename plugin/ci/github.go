package ci

import (
	"encoding/json"
	"fmt"
)

// githubEvent is what is read of the event's file.
// https://docs.github.com/en/webhooks/webhook-events-and-payloads
type githubEvent struct {
	Number      int    `json:"number"`
	Ref         string `json:"ref"`
	RefType     string `json:"ref_type"`
	Deleted     bool   `json:"deleted"`
	PullRequest struct {
		Head struct {
			SHA  string `json:"sha"`
			Ref  string `json:"ref"`
			Repo *struct {
				FullName string `json:"full_name"`
			} `json:"repo"`
		} `json:"head"`
	} `json:"pull_request"`
	Repository struct {
		DefaultBranch string `json:"default_branch"`
	} `json:"repository"`
}

func detectGitHub(env Env, readFile func(string) ([]byte, error)) (*Run, error) {
	var ev githubEvent
	if path := env("GITHUB_EVENT_PATH"); path != "" {
		b, err := readFile(path)
		if err == nil {
			err = json.Unmarshal(b, &ev)
		}
		if err != nil {
			return nil, fmt.Errorf("read the event in $GITHUB_EVENT_PATH: %w", err)
		}
	}
	r := &Run{
		System: GitHub, Event: Push, Repository: first(env("GITHUB_REPOSITORY_ID"), env("GITHUB_REPOSITORY")),
		Commit: env("GITHUB_SHA"), Production: ev.Repository.DefaultBranch, Workspace: env("GITHUB_WORKSPACE"),
		URL: env("GITHUB_SERVER_URL") + "/" + env("GITHUB_REPOSITORY") + "/actions/runs/" + env("GITHUB_RUN_ID"),
	}
	switch name := env("GITHUB_EVENT_NAME"); name {
	case "push", "workflow_dispatch", "schedule":
		if env("GITHUB_REF_TYPE") == "branch" {
			r.Branch = env("GITHUB_REF_NAME")
		}
	case "pull_request":
		head := ev.PullRequest.Head
		r.Event, r.Number, r.Branch = PullRequest, ev.Number, first(head.Ref, env("GITHUB_HEAD_REF"))
		r.Commit = first(head.SHA, r.Commit)
		// A fork that was deleted has no repository any more.
		r.Fork = head.Repo == nil || head.Repo.FullName == "" || head.Repo.FullName != env("GITHUB_REPOSITORY")
	case "delete":
		r.Event = Deleted
		if ev.RefType == "branch" {
			r.Branch = ev.Ref
		}
	case "pull_request_target":
		return nil, fmt.Errorf("pexpress ci does not run on pull_request_target: it would build a fork's code with this repository's secrets; use pull_request")
	default:
		return nil, fmt.Errorf("pexpress ci runs on push, pull_request, delete, schedule and workflow_dispatch, not on %q", name)
	}
	if ev.Deleted { // of a push: some systems that speak GitHub's dialect send it in place of delete
		r.Event = Deleted
	}
	return r, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
