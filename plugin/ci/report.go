package ci

import (
	"time"

	"github.com/pexpress/pexpress/cache/digest"
)

// Kind is what came of a location.
type Kind string

// Kinds, the least first.
const (
	Built      Kind = "built"      // and not deployed
	Superseded Kind = "superseded" // built; a later push is on its way, or the branch is gone
	Unchanged  Kind = "unchanged"  // it is served already
	Fast       Kind = "fast"       // the codeserver had deps.pex: only source.pex was shipped
	Full       Kind = "full"       // deps.pex was shipped as well
	Removed    Kind = "removed"
	Nothing    Kind = "nothing" // there was nothing to remove
	Failed     Kind = "failed"
)

// Decide says how a version is deployed, by digests alone: known are the digests of the deps.pex that the codeserver keeps,
// unchanged is whether it serves just this version.
func Decide(deps string, known map[string]bool, unchanged bool) Kind {
	switch {
	case unchanged:
		return Unchanged
	case known[deps]:
		return Fast
	}
	return Full
}

// Output is one tree of a location.
type Output struct {
	Name   string        `json:"name"` // "deps.pex"
	Digest digest.Digest `json:"digest"`
	// Hit is whether the cache had it, so that nothing was built.
	Hit bool `json:"hit"`
	// Took is the time from looking it up to having it.
	Took time.Duration `json:"-"`
}

// Stage is a step that has ended.
type Stage struct {
	Name  string
	Took  time.Duration
	Bytes int64 // that the codeserver fetched, or that were downloaded
}

// Location is what came of one location.
type Location struct {
	Name    string   `json:"name"`
	As      string   `json:"location"` // the name it is deployed under
	Kind    Kind     `json:"kind"`
	Outputs []Output `json:"outputs,omitempty"`
	Version string   `json:"version,omitempty"`
	Address string   `json:"address,omitempty"`
	URL     string   `json:"url,omitempty"`
	// Blobs and Bytes are what was new in the cache; Fetched what the codeserver fetched from there.
	Blobs   int64   `json:"blobs"`
	Bytes   int64   `json:"bytes"`
	Fetched int64   `json:"fetched_bytes"`
	Stages  []Stage `json:"-"`
	Error   string  `json:"error,omitempty"`
}

// Digest returns the digest of an output, zero if there is none of that name.
func (l *Location) Digest(output string) digest.Digest {
	for _, o := range l.Outputs {
		if o.Name == output {
			return o.Digest
		}
	}
	return digest.Digest{}
}

// Report is what came of a pipeline.
type Report struct {
	Run       *Run
	Locations []*Location
	Warnings  []string
	// Error is what failed apart from a location.
	Error string
	Took  time.Duration
}

var order = []Kind{Nothing, Removed, Built, Superseded, Unchanged, Fast, Full, Failed}

// Kind is the location's that had the most done to it.
func (r *Report) Kind() Kind {
	most := -1
	for _, l := range r.Locations {
		for i, k := range order {
			if k == l.Kind && i > most {
				most = i
			}
		}
	}
	if r.Error != "" {
		return Failed
	}
	if most < 0 {
		return Nothing
	}
	return order[most]
}

// URL is where the first location is reached that is.
func (r *Report) URL() string {
	for _, l := range r.Locations {
		if l.URL != "" {
			return l.URL
		}
	}
	return ""
}
