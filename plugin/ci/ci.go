// Package ci is what `pexpress ci` knows of the systems that run it: what a runner's environment says about a pipeline, how
// a branch's deployments are called, and how results are told to people and to later steps.
//
// Nothing here builds or deploys. The scripts in rules/github and rules/gitlab hold no logic of their own.
package ci

import (
	"errors"
	"fmt"
)

// System is what runs the pipeline.
type System string

// Systems.
const (
	GitHub System = "github"
	GitLab System = "gitlab"
)

// Event is why the pipeline runs.
type Event string

// Events.
const (
	Push        Event = "push"
	PullRequest Event = "pull_request"
	Deleted     Event = "deleted" // the branch is gone, or its environment was stopped
)

// Run is one pipeline.
type Run struct {
	System System
	Event  Event
	// Repository identifies the repository on its host, also after it was renamed.
	Repository string
	// Branch that was pushed or deleted; of a pull request the one it comes from.
	Branch string
	// Production is the branch whose deployments have no branch in their names.
	Production string
	// Commit that was pushed; of a pull request its head.
	Commit string
	// Number of the pull request, 0 if it is none.
	Number int
	// Fork is whether a pull request comes from another repository: its author is not trusted with anything.
	Fork bool
	// Stopped is whether a person or the system has asked for the end of the branch's deployment, whatever became of the branch.
	Stopped bool
	// URL of the pipeline's page.
	URL string
	// Workspace is the top of the checkout: the paths of annotations are below it.
	Workspace string
}

// Env looks up a variable, as os.Getenv does.
type Env func(string) string

// ErrNoRunner says that no known system runs this process.
var ErrNoRunner = errors.New("neither GITHUB_ACTIONS nor GITLAB_CI is set")

// Detect reads the runner's environment. readFile reads the file of GitHub's event.
func Detect(env Env, readFile func(string) ([]byte, error)) (*Run, error) {
	var r *Run
	var err error
	switch {
	case env("GITHUB_ACTIONS") == "true":
		r, err = detectGitHub(env, readFile)
	case env("GITLAB_CI") == "true":
		r, err = detectGitLab(env)
	default:
		return nil, fmt.Errorf("pexpress ci runs in GitHub Actions or GitLab CI: %w; elsewhere use pexpress deploy", ErrNoRunner)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case r.Event == PullRequest && r.Number <= 0:
		return nil, fmt.Errorf("the event of a pull request has no number: is $GITHUB_EVENT_PATH the event's file?")
	case r.Event == Deleted && r.Fork:
		return nil, fmt.Errorf("a fork's merge request ends no deployment: its branch has the name of one here by chance, or by intent")
	}
	if r.Branch == "" && r.Event != PullRequest {
		return nil, fmt.Errorf("the pipeline is not about a branch (a tag?): run pexpress ci on pushes to branches, pull requests and deleted branches")
	}
	return r, nil
}

// Deploys reports whether the pipeline may change what is served. A pull request's code was not accepted yet: its branch's
// own pushes deploy.
func (r *Run) Deploys() bool { return r.Event == Push }

// IsProduction reports whether the pipeline's branch is the one that deploys under the locations' own names.
func (r *Run) IsProduction() bool { return r.Production != "" && r.Branch == r.Production }
