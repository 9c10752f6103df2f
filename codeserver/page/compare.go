package page

import (
	"context"
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/codeserver/compare"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

const (
	compareTime = 30 * time.Second
	// maxFiles is how many files of a tree are named; of more the number is told.
	maxFiles = 2000
)

type changesView struct {
	Wheels   []compare.Wheel   `json:"wheels"`
	Trees    []treeView        `json:"trees"`
	Settings []compare.Setting `json:"settings"`
}

type treeView struct {
	Name  string         `json:"name"`
	Files []compare.File `json:"files"`
	More  int            `json:"more"`
}

// compare sends what differs between two kept versions.
func (p *Page) compare(w http.ResponseWriter, r *http.Request) {
	from, to := r.URL.Query().Get("from"), r.URL.Query().Get("to")
	_, found, err := p.versionsOf(r, from, to)
	if err != nil {
		failed(w, err)
		return
	}
	if from == "" || to == "" {
		fail(w, http.StatusBadRequest, "say which two versions")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), compareTime)
	defer cancel()
	select {
	case p.comparer <- struct{}{}:
	case <-ctx.Done():
		fail(w, http.StatusServiceUnavailable, "other comparisons are under way: try again")
		return
	}
	defer func() { <-p.comparer }()
	changes, err := compare.Versions(ctx, p.opts.Trees, found[0].GetSpec(), found[1].GetSpec())
	switch {
	case errors.Is(err, cache.ErrNotFound):
		fail(w, http.StatusNotFound, "a part of the versions is neither on this host nor in the cache any more: "+err.Error())
	case err != nil:
		fail(w, http.StatusBadGateway, "the versions cannot be compared: "+err.Error())
	default:
		writeJSON(w, http.StatusOK, changesOf(changes))
	}
}

func changesOf(c *compare.Changes) changesView {
	v := changesView{Wheels: append([]compare.Wheel{}, c.Wheels...), Trees: []treeView{}, Settings: append([]compare.Setting{}, c.Settings...)}
	for _, t := range c.Trees {
		named := t.Files[:min(len(t.Files), maxFiles)]
		v.Trees = append(v.Trees, treeView{Name: t.Name, Files: named, More: len(t.Files) - len(named)})
	}
	return v
}

// versionsOf returns the location of a request's path and versions of it by their whole names, "" being none, as far as the
// caller may read them.
func (p *Page) versionsOf(r *http.Request, names ...string) (*codeserverpb.Location, []*codeserverpb.Version, error) {
	all, err := p.control.list(r.Context())
	if err != nil {
		return nil, nil, err
	}
	for _, l := range all {
		if l.GetName() != r.PathValue("name") {
			continue
		}
		found := make([]*codeserverpb.Version, len(names))
		for i, name := range names {
			for _, v := range l.GetVersions() {
				if v.GetName() == name && found[i] == nil {
					found[i] = v
				}
			}
			if found[i] == nil && name != "" {
				return nil, nil, status.Errorf(codes.NotFound, "location %s keeps no version %.80q any more", l.GetName(), name)
			}
		}
		return l, found, nil
	}
	return nil, nil, status.Errorf(codes.NotFound, "there is no location %.80q, or you may not read it", r.PathValue("name"))
}
