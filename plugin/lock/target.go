package lock

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	version "github.com/aquasecurity/go-pep440-version"

	"github.com/pexpress/pexpress/cache/lazy"
)

// DefaultPlatform is what is built for unless something else is asked: glibc 2.28 and later, as on every Linux
// distribution that is still supported.
const DefaultPlatform = "manylinux_2_28_x86_64"

// Target is what wheels are selected for: CPython on one platform.
type Target struct {
	// Python is the minor version, such as "3.11".
	Python string
	// Patch is the full version where it is known, such as "3.11.7". Where it is not, markers see the first of the minor
	// version, and requires-python is satisfied if any of it satisfies.
	Patch string
	// Platform is a platform tag: manylinux_2_28_x86_64, musllinux_1_2_aarch64, macosx_14_0_arm64, win_amd64.
	Platform string
}

// String returns the target as messages name it.
func (t Target) String() string {
	if t.Platform == "" {
		return "CPython " + t.Python
	}
	return fmt.Sprintf("CPython %s on %s", t.Python, t.Platform)
}

var (
	pythonVersion = lazy.Regexp(`^(3\.[0-9]{1,3})(\.[0-9]{1,4})?$`)
	platformTag   = lazy.Regexp(`^(?:(manylinux|musllinux|macosx)_([0-9]{1,3})_([0-9]{1,3})|linux|win)_([a-z0-9_]{1,20})$`)
	legacyTag     = lazy.Regexp(`^manylinux(1|2010|2014)_([a-z0-9_]{1,20})$`)
)

// ParseTarget reads a Python version, "3.11" or "3.11.7", and a platform tag.
func ParseTarget(python, platform string) (Target, error) {
	m := pythonVersion().FindStringSubmatch(python)
	if m == nil {
		return Target{}, fmt.Errorf("%.40q is not a Python version such as 3.11 or 3.11.7", python)
	}
	t := Target{Python: m[1], Platform: platform}
	if m[2] != "" {
		t.Patch = python
	}
	if l := legacyTag().FindStringSubmatch(platform); l != nil {
		t.Platform = map[string]string{"1": "manylinux_2_5_", "2010": "manylinux_2_12_", "2014": "manylinux_2_17_"}[l[1]] + l[2]
	}
	p := platformTag().FindStringSubmatch(t.Platform)
	if p == nil || p[1] == "manylinux" && p[2] != "2" {
		return Target{}, fmt.Errorf("%.60q is not a platform tag such as manylinux_2_28_x86_64, musllinux_1_2_aarch64, macosx_14_0_arm64 or win_amd64", platform)
	}
	return t, nil
}

// minor returns the 11 of 3.11.
func (t Target) minor() int {
	_, minor, _ := strings.Cut(t.Python, ".")
	n, _ := strconv.Atoi(minor)
	return n
}

// admittedBy reports whether the version specifiers (PEP 440) admit the target's Python.
func (t Target) admittedBy(specifiers string) (bool, error) {
	if specifiers == "" {
		return true, nil
	}
	s, err := version.NewSpecifiers(specifiers, version.WithPreRelease(true))
	if err != nil {
		return false, fmt.Errorf("%.80q: %w", specifiers, err)
	}
	candidates := []string{t.Patch}
	if t.Patch == "" {
		candidates = candidates[:0]
		for _, patch := range patches(specifiers) {
			candidates = append(candidates, fmt.Sprintf("%s.%d", t.Python, patch))
		}
	}
	for _, c := range candidates {
		v, err := version.Parse(c)
		if err == nil && s.Check(v) {
			return true, nil
		}
	}
	return false, nil
}

// lastPatch is the last of a minor version that is thought of.
const lastPatch = 99

// patches returns patch versions of which one satisfies the specifiers if any from 0 to lastPatch does: what they say of
// one can differ from what they say of the next only at a number that stands in them. To try all takes milliseconds.
func patches(specifiers string) []int {
	all := []int{0, lastPatch}
	for _, digits := range strings.FieldsFunc(specifiers, func(r rune) bool { return r < '0' || r > '9' }) {
		if n, err := strconv.Atoi(digits); err == nil {
			for _, near := range []int{n - 1, n, n + 1} {
				all = append(all, min(max(near, 0), lastPatch))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Applies evaluates an environment marker (PEP 508) for the target.
func (t Target) Applies(marker string) (bool, error) { return evaluate(marker, t.environment()) }

// environment returns the values of marker variables (PEP 508) for the target. The kernel's release and version are not
// known when a build is planned, and are empty.
func (t Target) environment() *environment {
	full := t.Patch
	if full == "" {
		full = t.Python + ".0"
	}
	vars := map[string]string{
		"python_version": t.Python, "python_full_version": full, "implementation_version": full,
		"implementation_name": "cpython", "platform_python_implementation": "CPython",
		"platform_release": "", "platform_version": "",
	}
	m := platformTag().FindStringSubmatch(t.Platform)
	machine := ""
	if m != nil {
		machine = m[4]
	}
	vars["os_name"], vars["sys_platform"], vars["platform_system"], vars["platform_machine"] = "posix", "linux", "Linux", machine
	switch {
	case m != nil && m[1] == "macosx":
		vars["sys_platform"], vars["platform_system"] = "darwin", "Darwin"
	case strings.HasPrefix(t.Platform, "win_"):
		vars["os_name"], vars["sys_platform"], vars["platform_system"] = "nt", "win32", "Windows"
		vars["platform_machine"] = strings.ToUpper(machine)
	}
	return &environment{vars: vars}
}
