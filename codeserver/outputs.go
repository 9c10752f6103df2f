package codeserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/loader"
)

// loadOutputs loads the version's further trees, such as compiled assets, and returns their directories by name.
func (s *Server) loadOutputs(ctx context.Context, v *version, r report) (map[string]string, error) {
	dirs := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(v.outputs)) {
		begin := time.Now()
		tree, st, err := s.loader.Load(ctx, v.outputs[name])
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
		all := loader.Selection{Name: "output", Want: func(string) bool { return true }}
		// Nothing like it is looked for: like is there for bytecode, which such a tree has none of.
		if dirs[name], err = s.loader.Dir(ctx, tree, all, digest.Digest{}); err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
		r.stage("load "+name, begin, st)
	}
	return dirs, nil
}
