package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/merkle"
)

// lastPlan is what is kept of a location's last build, to explain the next one: digests only, the cache has the rest.
type lastPlan struct {
	DepsAction   digest.Digest `json:"deps_action"`
	DepsRoot     digest.Digest `json:"deps_root"`
	SourceAction digest.Digest `json:"source_action"`
	SourceRoot   digest.Digest `json:"source_root"`
	// Outputs are the Actions of the plugins' outputs, by name.
	Outputs map[string]digest.Digest `json:"outputs,omitempty"`
}

// planFile is where the last plan of a location of this checkout is kept.
func (s *session) planFile(location string) string {
	sum := sha256.Sum256([]byte(s.project.Dir + "\x00" + location))
	return filepath.Join(s.app.stateDir(), "plans", hex.EncodeToString(sum[:16])+".json")
}

func (s *session) remember(b *built) error {
	p := lastPlan{DepsAction: b.deps.Action, DepsRoot: b.deps.Root, SourceAction: b.source.Action, SourceRoot: b.source.Root}
	for _, o := range b.outputs {
		if p.Outputs == nil {
			p.Outputs = map[string]digest.Digest{}
		}
		p.Outputs[o.name] = o.Action
	}
	if reflect.DeepEqual(s.lastPlan(b.location.Name), p) {
		return nil
	}
	content, err := json.Marshal(p)
	if err != nil {
		return err
	}
	path := s.planFile(b.location.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, content, 0o600)
}

// lastPlan returns the zero value when there is none that can be read: it serves explanations only.
func (s *session) lastPlan(location string) (p lastPlan) {
	b, err := durable.ReadFile(s.planFile(location))
	if err != nil || json.Unmarshal(b, &p) != nil {
		return lastPlan{}
	}
	return p
}

// inputs returns a past Action and its input root, nil if the cache has dropped them.
func (s *session) inputs(ctx context.Context, action digest.Digest) (*repb.Action, *merkle.Tree, error) {
	if action.IsZero() {
		return nil, nil, nil
	}
	var a repb.Action
	err := cache.ReadMessage(ctx, s.cas, action, &a)
	var root digest.Digest
	if err == nil {
		root, err = digest.FromProto(a.GetInputRootDigest())
	}
	var t *merkle.Tree
	if err == nil {
		t, err = merkle.Load(ctx, s.cas, root)
	}
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil, nil
	}
	return &a, t, err
}
