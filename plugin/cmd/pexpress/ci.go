package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/plugin/ci"
	"github.com/pexpress/pexpress/plugin/project"
)

const ciHelp = `Do what a pipeline of GitHub Actions or GitLab CI is for, by what its environment says. docs/ci.md has the settings.

  a push                 build, and deploy: to the locations' own names on the production branch, else to names of the
                         branch's own. A push that is not the branch's newest any more is built and not deployed.
  a pull request         build, in a cache instance of its own that overlays the shared one
  a deleted branch       remove the branch's deployments

With a cache that cannot be reached the build goes on with this machine's disk, and says so.`

// ciOptions are the flags of `pexpress ci`.
type ciOptions struct {
	to, production, overlay, url, reportDir string
	cacheAudience, serverAudience           string
	timeout                                 time.Duration
	buildOnly, anyOrder                     bool
}

func (a *app) ciCommand() *cobra.Command {
	var o ciOptions
	c := &cobra.Command{
		Use:               "ci [LOCATION...]",
		Short:             "Build and deploy in a pipeline: by branch, with a summary, outputs and annotations",
		Long:              ciHelp,
		ValidArgsFunction: a.completeLocations,
		RunE:              func(c *cobra.Command, args []string) error { return a.runCI(c.Context(), o, args) },
	}
	f := c.Flags()
	f.StringVar(&o.to, "to", "", "address of the codeserver: unix:///socket or host:port [$PEXPRESS_CODESERVER] (default: the project's; "+
		"without one nothing is deployed)")
	f.StringVar(&o.production, "production-branch", "", "branch that deploys under the locations' own names (default: the repository's)")
	f.StringVar(&o.overlay, "overlay", "pr-{number}", "the cache's instance for a pull request, {number} being its number")
	f.StringVar(&o.url, "url", "http://{address}", "where a location is reached; {location}, {address} and {branch} are replaced")
	f.StringVar(&o.reportDir, "report-dir", "", "directory for summary.md, comment.md and report.json (default: pexpress-ci in $RUNNER_TEMP or $CI_PROJECT_DIR)")
	f.StringVar(&o.cacheAudience, "cache-audience", "pexcache", "audience of the OIDC token that the cache is shown")
	f.StringVar(&o.serverAudience, "codeserver-audience", "codeserver", "audience of the OIDC token that the codeserver is shown")
	f.DurationVar(&o.timeout, "ready-timeout", time.Minute, "how long a new version may take to become ready")
	f.BoolVar(&o.buildOnly, "build-only", false, "deploy nothing")
	f.BoolVar(&o.anyOrder, "deploy-without-knowing-the-newest-push", false,
		"deploy also when the repository cannot be asked for the branch's newest commit")
	a.signFlag(c)
	a.targetFlags(c)
	return c
}

// ciJob is one run of `pexpress ci`.
type ciJob struct {
	app         *app
	opts        ciOptions
	run         *ci.Run
	report      *ci.Report
	annotations []ci.Annotation
	location    *ci.Location // that is being built or deployed
	names       []string     // the locations asked for; all if empty
	out         io.Writer
	tokenAt     time.Time // when PEXPRESS_CACHE_TOKEN was last set to a token of the run's own; zero if it is not
	shared      bool      // the cache is the one that was asked for, not this machine's disk
	failure     error     // of a location
}

func (a *app) runCI(ctx context.Context, o ciOptions, names []string) error {
	start := time.Now()
	run, err := ci.Detect(os.Getenv, os.ReadFile)
	if errors.Is(err, ci.ErrNoRunner) {
		return usageError{err}
	}
	if err != nil {
		return inputError{err}
	}
	if run.Production = first(o.production, run.Production); run.Production == "" && run.Event != ci.PullRequest {
		return inputErrorf("the pipeline's environment does not say which branch is the repository's default: name it with --production-branch, " +
			"or production would be deployed as a branch")
	}
	j := &ciJob{app: a, opts: o, run: run, report: &ci.Report{Run: run}, names: names, shared: true, out: a.ui.out}
	restore := j.listen()
	err = j.do(ctx)
	restore()
	if err != nil {
		err = a.cacheFailure(err)
		j.report.Error = err.Error()
		j.annotate("pexpress ci", err)
	}
	j.report.Took = time.Since(start)
	if perr := ci.Publish(j.report, j.annotations, j.reportDir(), os.Getenv); perr != nil {
		return fmt.Errorf("write the report: %w", errors.Join(perr, err, j.failure))
	}
	j.say("%s in %s: %s", j.report.Kind(), took(j.report.Took), first(j.report.URL(), "nothing is served by this run"))
	if code := exitCode(errors.Join(err, j.failure)); code != 0 {
		return &exitError{code} // it was said with the annotation
	}
	return nil
}

func (j *ciJob) do(ctx context.Context) error {
	if j.run.Event == ci.Deleted {
		return j.removeBranch(ctx)
	}
	p, err := project.Load(j.app.dir)
	if err != nil {
		return inputError{err}
	}
	if err := j.chooseCache(p); err != nil {
		return err
	}
	locs, err := (&session{project: p}).locations(j.names)
	if err != nil {
		return err
	}
	for _, loc := range locs {
		j.doLocation(ctx, loc)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// doLocation builds one location and deploys it if that is what the run is for. Its failure is no reason to leave the
// others where they are.
func (j *ciJob) doLocation(ctx context.Context, loc *project.Location) {
	l := &ci.Location{Name: loc.Name, As: j.deployedAs(loc.Name), Kind: ci.Built}
	j.report.Locations = append(j.report.Locations, l)
	j.location = l
	begin, end := j.run.Section("pexpress_"+loc.Name, "pexpress: "+l.As, time.Now().Unix())
	j.say("%s", begin)
	b, err := j.build(ctx, loc)
	if err == nil && j.wantsDeploy() {
		err = j.deploy(ctx, loc, b, l)
	} else if err == nil && j.run.Event == ci.PullRequest && !j.run.Fork && j.serverAddress() != "" {
		j.linkBranch(ctx, l)
	}
	j.say("%s", end)
	if err != nil {
		err = j.app.cacheFailure(err)
		l.Kind, l.Error = ci.Failed, err.Error()
		j.failure = errors.Join(j.failure, err)
		j.annotate("pexpress: location "+loc.Name, err)
	}
}

// deployedAs is the name that a location of this branch has at the codeserver.
func (j *ciJob) deployedAs(name string) string {
	if j.run.IsProduction() && !j.run.Fork {
		return name
	}
	return ci.BranchName(name, j.run.Repository, j.run.Branch)
}

func (j *ciJob) wantsDeploy() bool {
	if !j.run.Deploys() || j.opts.buildOnly {
		return false
	}
	if j.serverAddress() == "" {
		j.warn("no codeserver is named (PEXPRESS_CODESERVER or --to): built, and not deployed")
		return false
	}
	return true
}

func (j *ciJob) reportDir() string {
	switch {
	case j.opts.reportDir != "":
		return j.opts.reportDir
	case j.run.System == ci.GitLab:
		return filepath.Join(first(j.run.Workspace, j.app.dir), "pexpress-ci")
	}
	return filepath.Join(first(os.Getenv("RUNNER_TEMP"), os.TempDir()), "pexpress-ci")
}
