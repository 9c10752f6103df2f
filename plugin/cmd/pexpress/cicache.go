package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache/local"
	"github.com/pexpress/pexpress/cache/open"
	"github.com/pexpress/pexpress/plugin/ci"
	"github.com/pexpress/pexpress/plugin/project"
)

// What the runner's own token is called where GitLab makes it, see rules/gitlab.
const (
	gitlabCacheToken  = "PEXPRESS_CACHE_ID_TOKEN"
	gitlabServerToken = "PEXPRESS_CODESERVER_ID_TOKEN"
)

// cacheCredentials are variables that a fork's pull request must not use, should they be there, nor what it has run.
var cacheCredentials = []string{
	"PEXPRESS_CACHE_TOKEN", "PEXPRESS_CACHE_CERT", "PEXPRESS_CACHE_KEY", gitlabCacheToken, gitlabServerToken,
	"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
}

// chooseCache settles which cache the job uses: a pull request's is an overlay, so that it reads what the shared instance
// has and changes nothing there.
func (j *ciJob) chooseCache(p *project.Project) error {
	a := j.app
	a.useCacheOf(p)
	a.cacheChosen = true
	if j.run.Fork {
		if err := j.dropCredentials(); err != nil {
			return err
		}
	}
	if _, local := open.Dir(a.cache); local {
		return nil
	}
	if j.run.Event != ci.PullRequest {
		return nil
	}
	address, ok, err := ci.Overlay(a.cache, j.opts.overlay, j.run.Number)
	if err != nil {
		return usageError{err}
	}
	if !ok {
		j.useDisk(fmt.Sprintf("a pull request may not write to the cache %s, which has no instances to overlay", redacted(a.cache)))
		return nil
	}
	a.cache = address
	j.say("cache          %s", redacted(address))
	return nil
}

// dropCredentials forgets all that the cache could be shown, for what is built may not be trusted with it.
func (j *ciJob) dropCredentials() error {
	for _, name := range cacheCredentials {
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	if u, err := url.Parse(j.app.cache); err == nil && u.User != nil {
		u.User = nil
		j.app.cache = u.String()
	}
	return nil
}

// useDisk goes on with this machine's disk as the cache.
func (j *ciJob) useDisk(why string) {
	j.shared = false
	j.app.cache = filepath.Join(j.app.home, "cache")
	j.warn(why + "; the build goes on with the cache of this machine's disk, " + j.app.cache)
}

// build builds a location with the cache, or with the disk if the cache cannot be used.
func (j *ciJob) build(ctx context.Context, loc *project.Location) (*built, error) {
	if j.shared {
		if err := j.showToken(ctx); err != nil {
			return nil, unavailableError{err}
		}
	}
	b, err := j.tryBuild(ctx, loc)
	if err != nil && j.tokenIsOld() && isCacheFailure(j.app.cacheFailure(err)) {
		if terr := j.showToken(ctx); terr != nil {
			return nil, unavailableError{errors.Join(terr, err)}
		}
		b, err = j.tryBuild(ctx, loc) // what was stored is there
	}
	if err == nil || !j.shared || ctx.Err() != nil || !j.cacheIsAway(err) {
		return b, err
	}
	j.useDisk(j.app.cacheFailure(err).Error())
	return j.tryBuild(ctx, loc)
}

func (j *ciJob) tryBuild(ctx context.Context, loc *project.Location) (b *built, err error) {
	l := j.location
	l.Stages, l.Outputs = nil, nil
	err = j.app.with(ctx, func(s *session) error {
		own, err := s.project.Location(loc.Name)
		if err != nil {
			return err
		}
		if b, err = s.buildLocation(ctx, own); err != nil {
			return err
		}
		l.Blobs, l.Bytes = s.cas.Shipped()
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, o := range b.all() {
		l.Outputs = append(l.Outputs, ci.Output{Name: o.name, Digest: o.Root, Hit: o.Hit, Took: o.Took})
		how := "rebuilt"
		if o.Hit {
			how = "cache hit"
		}
		j.say("%-14s %9s  %s  %s", o.name, took(o.Took), o.Root.Short(), how)
	}
	j.say("%-14s %9s  %s new in the cache, %s", "stored", "", count(l.Blobs, "blob"), size(l.Bytes))
	return b, nil
}

// cacheIsAway reports whether an error means that the cache cannot be reached or used just now. One that refuses the
// credentials of a push is not away: that is for somebody to mend. A pull request's is used if it can be.
func (j *ciJob) cacheIsAway(err error) bool {
	if _, local := open.Dir(j.app.cache); local {
		return false
	}
	if !isCacheFailure(j.app.cacheFailure(err)) {
		return false
	}
	if j.run.Event == ci.PullRequest {
		return true
	}
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument:
		return false
	}
	return true
}

// tokenTime is how old a token may be and surely be valid: GitHub's last for five minutes.
const tokenTime = 4 * time.Minute

// tokenIsOld reports whether the cache was shown a token of the run's own that may have expired.
func (j *ciJob) tokenIsOld() bool {
	return j.shared && j.run.System == ci.GitHub && !j.tokenAt.IsZero() && time.Since(j.tokenAt) > tokenTime
}

// showToken has the cache shown the run's own token, unless it is shown something else. A token is asked for before each
// build, and again when a build has outlasted it.
func (j *ciJob) showToken(ctx context.Context) error {
	if os.Getenv("PEXPRESS_CACHE_CERT") != "" || os.Getenv("PEXPRESS_CACHE_TOKEN") != "" && j.tokenAt.IsZero() {
		return nil
	}
	if u, err := url.Parse(j.app.cache); err != nil || !mayCarryToken(u) {
		return nil
	}
	token, err := j.token(ctx, j.opts.cacheAudience, gitlabCacheToken)
	if err != nil || token == "" {
		return err
	}
	j.tokenAt = time.Now()
	return os.Setenv("PEXPRESS_CACHE_TOKEN", token)
}

// token returns a token of the run, kept from the job's log.
func (j *ciJob) token(ctx context.Context, audience, gitlabVariable string) (string, error) {
	token, err := j.run.Token(ctx, os.Getenv, audience, gitlabVariable)
	if err == nil && token != "" && j.run.System == ci.GitHub {
		j.say("::add-mask::%s", token)
	}
	return token, err
}

// serverContext has a codeserver shown a token that is reached without encryption: the token goes over a socket or the
// loopback interface only.
func (j *ciJob) serverContext(ctx context.Context, address string) (context.Context, error) {
	host, _, err := net.SplitHostPort(address)
	if _, socket := local.Socket(address); !socket && (err != nil || !local.IsHost(host)) {
		return ctx, nil
	}
	token, err := j.token(ctx, j.opts.serverAudience, gitlabServerToken)
	if err != nil || token == "" {
		return ctx, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}

// mayCarryToken reports whether a token sent there stays secret.
func mayCarryToken(u *url.URL) bool {
	switch u.Scheme {
	case "grpcs", "https", "unix":
		return true
	case "grpc", "http":
		return u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()
	}
	return false
}

func redacted(address string) string {
	if u, err := url.Parse(address); err == nil {
		return u.Redacted()
	}
	return address
}
