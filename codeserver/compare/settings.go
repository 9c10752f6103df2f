package compare

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// settings compares what a version is beside its trees.
func settings(before, after *codeserverpb.VersionSpec) []Setting {
	old, now := values(before), values(after)
	var all []Setting
	for name, b := range now {
		a, ok := old[name]
		switch {
		case !ok:
			all = append(all, Setting{Name: name, After: b, Kind: Added})
		case a != b:
			all = append(all, Setting{name, a, b, Changed})
		}
	}
	for name, a := range old {
		if _, ok := now[name]; !ok {
			all = append(all, Setting{Name: name, Before: a, Kind: Removed})
		}
	}
	all = append(all, variables(before.GetEnv(), after.GetEnv())...)
	slices.SortFunc(all, func(a, b Setting) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// variables compares environments by name: a value may be what only the location is to know.
func variables(before, after map[string]string) []Setting {
	var all []Setting
	for name, b := range after {
		a, ok := before[name]
		switch {
		case !ok:
			all = append(all, Setting{Name: "env " + name, After: "set", Kind: Added})
		case a != b:
			all = append(all, Setting{Name: "env " + name, Before: "set", After: "another value", Kind: Changed})
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			all = append(all, Setting{Name: "env " + name, Before: "set", Kind: Removed})
		}
	}
	return all
}

// values names all of a spec that is neither a tree nor a variable and is not at its default.
func values(s *codeserverpb.VersionSpec) map[string]string {
	e, l := s.GetEntry(), s.GetLimits()
	all := map[string]string{
		"python": s.GetPython(), "preset": e.GetPreset(), "arguments": strings.Join(e.GetArgs(), " "),
		"working directory": e.GetWorkingDirectory(), "source roots": strings.Join(e.GetSourceRoots(), " "),
		"secrets": strings.Join(s.GetSecrets(), " "), "readiness": readiness(e.GetReadiness()),
	}
	if s.GetCold() {
		all["warm start"] = "off"
	}
	for name, n := range map[string]int64{
		"limit memory (bytes)": l.GetMemoryBytes(), "limit cpu (1/1000)": l.GetCpuMillis(),
		"limit processes": l.GetPids(), "limit open files": l.GetOpenFiles(), "limit /tmp (bytes)": l.GetTmpBytes(),
	} {
		if n != 0 {
			all[name] = fmt.Sprint(n)
		}
	}
	for name, v := range all {
		if v == "" {
			delete(all, name)
		}
	}
	return all
}

func readiness(r *codeserverpb.Readiness) string {
	switch p := r.GetProbe().(type) {
	case *codeserverpb.Readiness_GrpcService:
		return "gRPC health " + p.GrpcService
	case *codeserverpb.Readiness_HttpPath:
		return "HTTP " + p.HttpPath
	case *codeserverpb.Readiness_Tcp:
		return "TCP"
	}
	return ""
}
