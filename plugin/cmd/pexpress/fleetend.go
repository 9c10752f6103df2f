package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// end moves back what is to be moved back, says which codeserver has which version, and returns the first error.
func (f *fleet) end(ctx context.Context) error {
	interrupted := ctx.Err()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.patience())
	defer cancel()
	var failed error
	for _, m := range f.members {
		if m.err != nil && (failed == nil || errors.Is(failed, context.Canceled)) {
			failed = fmt.Errorf("codeserver %s: %w", m.address, m.err)
		}
	}
	if failed == nil {
		failed = interrupted
	}
	if failed != nil && f.rollout.allOrNothing {
		var wg sync.WaitGroup
		for _, m := range f.members {
			if m.begun {
				wg.Go(func() { f.back(ctx, m) })
			}
		}
		wg.Wait()
	}
	have := 0
	for _, m := range f.members {
		m.now, _ = f.serving(ctx, m) // nil is said to be unknown
		if f.has(m) {
			have++
		}
		f.report(m)
	}
	if failed == nil {
		return nil
	}
	return fmt.Errorf("%w\nThe new version is on %d of %s", failed, have, count(len(f.members), "codeserver"))
}

// patience is how long the ways back may take together.
func (f *fleet) patience() time.Duration {
	return f.reqs[0].GetReadyTimeout().AsDuration()*time.Duration(len(f.reqs)) + 30*time.Second
}

// has reports whether a codeserver serves all that was to be deployed.
func (f *fleet) has(m *member) bool {
	for name, version := range f.names {
		if m.now[name] != version {
			return false
		}
	}
	return true
}

// back moves a codeserver to what it served before. What it serves is asked: a deploy whose end was not heard of may have
// switched, and what somebody else has deployed since stays.
func (f *fleet) back(ctx context.Context, m *member) {
	now, err := f.serving(ctx, m)
	for name, version := range f.names {
		if err != nil || now[name] != version || m.before[name] == version {
			continue
		}
		if m.before[name] == "" {
			_, err = m.client.Remove(ctx, &codeserverpb.RemoveRequest{Location: name, IfCurrent: &version})
		} else {
			err = f.rollBack(ctx, m, name, version)
		}
		if err == nil {
			m.result = "moved back"
		}
	}
	if err != nil {
		m.err = fmt.Errorf("it could not be moved back: %w", err)
		m.result = "failed"
	}
}

func (f *fleet) rollBack(ctx context.Context, m *member, location, from string) error {
	stream, err := m.client.Rollback(ctx, &codeserverpb.RollbackRequest{
		Location: location, Version: m.before[location], IfCurrent: &from, ReadyTimeout: f.reqs[0].GetReadyTimeout(),
	})
	if err != nil {
		return deployError(err)
	}
	if _, err = untilDeployed(stream, f.stage(m)); err == nil {
		readEnd(stream)
	}
	return err
}

// report says how a codeserver is in the end.
func (f *fleet) report(m *member) {
	var serves []string
	for _, req := range f.reqs {
		switch v := m.now[req.GetLocation()]; {
		case m.now == nil:
			serves = append(serves, req.GetLocation()+" unknown")
		case v == "":
			serves = append(serves, "no "+req.GetLocation())
		default:
			serves = append(serves, req.GetLocation()+"@"+short(v))
		}
	}
	v := map[string]any{"host": m.address, "result": m.result, "serves": m.now}
	text := fmt.Sprintf("%-14s %9s  %s: %s", m.result, "", m.address, strings.Join(serves, ", "))
	if m.err != nil {
		v["message"] = m.err.Error()
		text += "\n" + indent(m.err.Error())
	}
	f.app.ui.event("host", v, "%s", text)
}
