package codeserver

import (
	"context"
	"fmt"

	"github.com/pexpress/pexpress/codeserver/limits"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/secrets"
)

// The least that a version can be limited to: with less, the kernel or an interpreter's own start refuses.
const (
	leastMemory    = 8 << 20
	leastCPU       = 10 // the kernel gives a millisecond of every tenth of a second
	mostCPU        = 1_000_000
	leastPids      = 2
	leastOpenFiles = 64
	leastTmp       = 1 << 20
)

func checkLimits(l *codeserverpb.Limits) error {
	for _, c := range []struct {
		name        string
		value, from int64
	}{
		{"memory_bytes", l.GetMemoryBytes(), leastMemory},
		{"cpu_millis", l.GetCpuMillis(), leastCPU},
		{"pids", l.GetPids(), leastPids},
		{"open_files", l.GetOpenFiles(), leastOpenFiles},
		{"tmp_bytes", l.GetTmpBytes(), leastTmp},
	} {
		if c.value != 0 && c.value < c.from {
			return fmt.Errorf("%w: the limit %s is %d: the least is %d, and 0 is none", errRequest, c.name, c.value, c.from)
		}
	}
	if l.GetCpuMillis() > mostCPU {
		return fmt.Errorf("%w: the limit cpu_millis is %d: the most is %d", errRequest, l.GetCpuMillis(), mostCPU)
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
	g, err := s.limits.Group(fmt.Sprintf("%s-%.12s", p.location, v.name), groupLimits(v.spec))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return g, nil
}

func groupLimits(spec *codeserverpb.VersionSpec) limits.Limits {
	l := spec.GetLimits()
	return limits.Limits{Memory: l.GetMemoryBytes(), CPU: l.GetCpuMillis(), Pids: l.GetPids(), OpenFiles: l.GetOpenFiles()}
}
