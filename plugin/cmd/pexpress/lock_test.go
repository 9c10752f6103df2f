package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/plugin/project"
)

func TestLocationsThatShareALock(t *testing.T) {
	loc := func(name, lock string, extras, groups []string) project.Location {
		return project.Location{Name: name, Lock: lock, Extras: extras, Groups: groups}
	}
	for name, locs := range map[string][]project.Location{
		"the same ones": {
			loc("api", "pylock.toml", []string{"web", "more-work"}, nil), loc("jobs", "pylock.toml", []string{"More_Work", "web"}, nil),
		},
		"a lock each": {loc("api", "pylock.toml", []string{"api"}, nil), loc("jobs", "pylock.jobs.toml", nil, []string{"jobs"})},
	} {
		require.NoError(t, checkShared(locs), name)
	}
	for want, other := range map[string]project.Location{
		`lock = "pylock.jobs.toml" in [tool.pexpress.location.jobs]`:             loc("jobs", "pylock.toml", []string{"api", "jobs"}, nil),
		`lock = "pylock.work.toml" in [tool.pexpress.location.work]`:             loc("work", "pylock.toml", []string{"api"}, []string{"dev"}),
		`lock = "pylock.shop-jobs.toml" in [tool.pexpress.location."shop.jobs"]`: loc("shop.jobs", "pylock.toml", nil, nil),
	} {
		require.ErrorContains(t, checkShared([]project.Location{loc("api", "pylock.toml", []string{"api"}, nil), other}), want)
	}
}
