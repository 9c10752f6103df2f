package codeserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/proxy"
)

// errTrial says that a version did not stand its trial.
var errTrial = errors.New("the canary was withdrawn")

const (
	// judgeEvery is the pause between two looks at what a canary has answered.
	judgeEvery = 100 * time.Millisecond
	// judgedFrom is how many answers of a canary say something.
	judgedFrom = 20
)

// try gives a version a share of the location's traffic, beside the one that serves, for as long as the request says. The
// error is why it must not have all of it. Nothing is tried where no version is up: there is nothing to compare with.
func (s *Server) try(ctx context.Context, t *transition, r report) error {
	c := t.req.GetCanary()
	s.mu.Lock()
	old := t.l.current
	if old == nil || old.running == nil {
		s.mu.Unlock()
		return nil
	}
	oldRun := old.running
	t.tried = true
	t.l.canary, t.l.canaryPercent = t.v, int(c.GetPercent())
	t.v.state = codeserverpb.State_READY
	s.mu.Unlock()
	j := judge{canary: c, fresh: t.v.stats, old: old.stats, freshBefore: t.v.stats.Counts(), oldBefore: old.stats.Counts()}
	begin := time.Now()
	t.l.proxy.Try(t.run.backend, int(c.GetPercent()))
	s.changed()
	err := j.watch(ctx, t.run.worker.Done(), oldRun.worker.Done())
	n := j.answers()
	if err == nil {
		// Requests that it has begun and does not answer are not in the count.
		err = s.stillReady(ctx, t)
	}
	if err == nil {
		if n < judgedFrom {
			s.opts.Log.Warn("a canary had too few requests to judge it by, and gets all of them", "location", t.l.name, "version", t.v.name, "answers", n)
		}
		r.noted("canary", begin, basis(n))
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w%s", errTrial, err, t.v.log.lastWords())
}

// withdraw ends a location's trial: the version that serves has all requests again. A version may have stood its trial and
// be withdrawn all the same, when the state cannot be kept.
func (s *Server) withdraw(l *location) {
	l.proxy.Try(nil, 0)
	s.mu.Lock()
	l.canary, l.canaryPercent = nil, 0
	s.mu.Unlock()
	s.changed()
}

func (s *Server) stillReady(ctx context.Context, t *transition) error {
	ctx, cancel := context.WithTimeout(ctx, stillAnswers)
	defer cancel()
	return waitReady(ctx, t.v.spec.GetEntry(), t.run.port, t.run.worker)
}

// judge compares what two versions have answered since a trial began.
type judge struct {
	canary                 *codeserverpb.Canary
	fresh, old             *proxy.Stats
	freshBefore, oldBefore proxy.Counts
}

// watch returns nil at the end of the trial, or before with why the new version fails it.
func (j *judge) watch(ctx context.Context, freshEnded, oldEnded <-chan struct{}) error {
	end := time.NewTimer(j.canary.GetDuration().AsDuration())
	defer end.Stop()
	look := time.NewTicker(judgeEvery)
	defer look.Stop()
	for {
		if err := j.verdict(); err != nil {
			return err
		}
		select {
		case <-look.C:
		case <-end.C:
			return j.verdict()
		case <-freshEnded:
			return errors.New("its process ended")
		case <-oldEnded:
			return errors.New("the version that serves ended by itself: there is nothing to compare with")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// answers returns how many requests the new version has answered.
func (j *judge) answers() int64 {
	_, n := share(j.fresh.Counts(), j.freshBefore)
	return n
}

// basis says by how many answers a version was judged that has stood its trial. A trial without requests shows nothing.
func basis(answers int64) string {
	if answers < judgedFrom {
		return fmt.Sprintf("too few answers to judge it by: %d of %d", answers, judgedFrom)
	}
	return fmt.Sprintf("judged by %d answers", answers)
}

func (j *judge) verdict() error {
	fresh, answers := share(j.fresh.Counts(), j.freshBefore)
	old, oldAnswers := share(j.old.Counts(), j.oldBefore)
	if answers < judgedFrom {
		return nil
	}
	more := j.canary.GetMaxMoreErrorsPercent()
	if more == 0 {
		more = 1
	}
	if fresh > old+float64(more) {
		return fmt.Errorf("%.1f %% of its %d requests failed, and %.1f %% of those of the version that serves", fresh, answers, old)
	}
	limit := j.canary.GetMaxLatencyPercent()
	if limit == 0 || oldAnswers < judgedFrom {
		return nil
	}
	took, _ := j.fresh.Latencies()
	oldTook, _ := j.old.Latencies()
	if float64(took) > float64(oldTook)*float64(limit)/100 {
		return fmt.Errorf("half of its requests took more than %s, and of those of the version that serves %s", took, oldTook)
	}
	return nil
}

// share returns the percentage of the requests since before that failed, and their number.
func share(now, before proxy.Counts) (percent float64, answers int64) {
	answers = now.Answered - before.Answered
	if answers == 0 {
		return 0, 0
	}
	return 100 * float64(now.Failed-before.Failed) / float64(answers), answers
}
