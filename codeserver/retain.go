package codeserver

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/loader"
)

// retainAfter is how long after a deploy what it made superfluous is deleted: not while the next one is on its way.
const retainAfter = time.Second

// retainSoon has retention run in a while, once for all who ask until then.
func (s *Server) retainSoon() {
	if s.ctx.Err() != nil || !s.tidySoon.CompareAndSwap(false, true) {
		return
	}
	s.tasks.Go(func() {
		select {
		case <-time.After(retainAfter):
		case <-s.ctx.Done():
			return
		}
		s.tidySoon.Store(false)
		switch err := s.retain(); {
		case errors.Is(err, loader.ErrBusy):
			s.retainSoon()
		case err != nil && s.ctx.Err() == nil:
			s.opts.Log.Warn("retention", "error", err)
		}
	})
}

// retain forgets versions that are no longer kept, and what only they needed.
func (s *Server) retain() error {
	remove, err := s.putAway()
	if remove == nil {
		return err
	}
	return errors.Join(err, remove(), s.save())
}

// putAway has what is no longer kept out of sight. What it returns deletes it: no deploy waits for that.
func (s *Server) putAway() (remove func() error, err error) {
	// A deploy that begins now would not be among those whose trees stay.
	s.tidy.Lock()
	defer s.tidy.Unlock()
	s.mu.Lock()
	var deps, trees []digest.Digest
	logs, homes := map[string]bool{}, map[string]bool{}
	warm := map[string][]string{} // locations, by key
	s.leaving = slices.DeleteFunc(s.leaving, func(l *location) bool {
		return !slices.ContainsFunc(l.versions, func(v *version) bool { return v.running != nil })
	})
	for _, l := range slices.AppendSeq(slices.Clone(s.leaving), maps.Values(s.locations)) {
		l.dropOld(s.opts.Keep)
		homes[filepath.Base(s.homeOf(l, l.user))] = true
		for _, v := range append(slices.Clone(l.loading), l.current) {
			if v != nil {
				key := warmKey(v.spec)
				warm[key] = append(warm[key], l.name)
			}
		}
		for _, v := range l.known() {
			deps = append(deps, v.deps)
			trees = append(trees, v.deps, v.source)
			for _, root := range v.outputs {
				trees = append(trees, root)
			}
			logs[s.logPath(l, v)] = true
		}
	}
	for _, v := range s.unserved {
		logs[s.logPath(v.location, v)] = true
	}
	s.mu.Unlock()
	remove, err = s.loader.Keep(s.ctx, trees)
	if remove == nil {
		return nil, err
	}
	return remove, errors.Join(err, s.zygotes.Keep(warm), s.venvs.Keep(s.ctx, deps), s.keepLogs(logs), s.keepHomes(homes))
}

// keepLogs deletes the logs of versions that are gone.
func (s *Server) keepLogs(kept map[string]bool) error {
	dir := filepath.Join(s.opts.State, "logs")
	logs, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range logs {
		if path := filepath.Join(dir, e.Name()); filepath.Ext(path) == ".log" && !kept[path] {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}
