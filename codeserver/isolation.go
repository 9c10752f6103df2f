package codeserver

import (
	"context"
	"fmt"

	"github.com/pexpress/pexpress/codeserver/bounds"
	"github.com/pexpress/pexpress/codeserver/limits"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/secrets"
)

func checkLimits(l *codeserverpb.Limits) error {
	if err := bounds.Check(l); err != nil {
		return fmt.Errorf("%w: %w", errRequest, err)
	}
	return nil
}

func checkSecrets(spec *codeserverpb.VersionSpec) error {
	seen := map[string]bool{}
	for _, name := range spec.GetSecrets() {
		if err := secrets.CheckName(name); err != nil {
			return fmt.Errorf("%w: %w", errRequest, err)
		}
		if _, twice := spec.GetEnv()[name]; twice || seen[name] {
			return fmt.Errorf("%w: %s is named twice among the version's secrets and variables", errRequest, name)
		}
		seen[name] = true
	}
	return nil
}

// secretValues reads what the operator's file gives to a version, as it is now.
func (s *Server) secretValues(ctx context.Context, location string, spec *codeserverpb.VersionSpec) (map[string]string, error) {
	if len(spec.GetSecrets()) == 0 {
		return nil, nil
	}
	if s.opts.Secrets == "" {
		return nil, fmt.Errorf("%w: the version needs the secrets %q, and the codeserver was started without --secrets", errRefused, spec.GetSecrets())
	}
	set, err := secrets.Read(s.opts.Secrets)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	values, err := set.Values(ctx, location, spec.GetSecrets())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return values, nil
}

// group makes the cgroup of a start of a version.
func (s *Server) group(v *version, p *prepared) (*limits.Group, error) {
	l := groupLimits(v.spec)
	s.remark(v, p, l)
	g, err := s.limits.Group(fmt.Sprintf("%s-%.12s", p.location, v.name), l)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return g, nil
}

// remark logs which limits of a version are more than the host has: once of each that its location has, not at each start.
func (s *Server) remark(v *version, p *prepared, of limits.Limits) {
	is := map[string]any{"cpu": float64(of.CPU) / 1000, "memory": limits.Size(of.Memory)}
	for name, much := range of.Excess() {
		s.mu.Lock()
		l := s.locations[p.location]
		known := l == nil || l.remarked[name] == is[name]
		if !known {
			l.remarked[name] = is[name]
		}
		s.mu.Unlock()
		if !known {
			s.opts.Log.Warn("a version's limit "+name+" is "+much, "location", p.location, "version", v.name, name, is[name])
		}
	}
}

func groupLimits(spec *codeserverpb.VersionSpec) limits.Limits {
	l := spec.GetLimits()
	return limits.Limits{Memory: l.GetMemoryBytes(), CPU: l.GetCpuMillis(), Pids: l.GetPids(), OpenFiles: l.GetOpenFiles()}
}
