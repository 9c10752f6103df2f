package lock

import (
	"fmt"
	"strconv"
)

// Tags returns the wheel tags that the target supports, best first, as PEP 425 orders them: what is compiled for the
// very version and platform, the stable ABI of this and older versions, then pure Python.
func (t Target) Tags() []string {
	var tags []string
	minor, platforms := t.minor(), t.platforms()
	add := func(python, abi string, platforms ...string) {
		for _, p := range platforms {
			tags = append(tags, python+"-"+abi+"-"+p)
		}
	}
	cp := fmt.Sprintf("cp3%d", minor)
	add(cp, cp, platforms...)
	add(cp, "abi3", platforms...)
	add(cp, "none", platforms...)
	for m := minor - 1; m >= 2; m-- {
		add(fmt.Sprintf("cp3%d", m), "abi3", platforms...)
	}
	pure := []string{fmt.Sprintf("py3%d", minor), "py3"}
	for m := minor - 1; m >= 0; m-- {
		pure = append(pure, fmt.Sprintf("py3%d", m))
	}
	for _, py := range pure {
		add(py, "none", platforms...)
	}
	add(cp, "none", "any")
	for _, py := range pure {
		add(py, "none", "any")
	}
	return tags
}

// ranks maps each supported tag to its place; 0 is the best.
func (t Target) ranks() map[string]int {
	tags := t.Tags()
	ranks := make(map[string]int, len(tags))
	for i, tag := range tags {
		ranks[tag] = i
	}
	return ranks
}

// platforms returns the platform tags that the target's platform runs, best first.
func (t Target) platforms() []string {
	m := platformTag().FindStringSubmatch(t.Platform)
	if m == nil {
		return nil
	}
	major, _ := strconv.Atoi(m[2])
	minor, _ := strconv.Atoi(m[3])
	switch arch := m[4]; m[1] {
	case "manylinux":
		return manylinux(minor, arch)
	case "musllinux":
		return musllinux(major, minor, arch)
	case "macosx":
		return macosx(major, minor, arch)
	}
	return []string{t.Platform}
}

// manylinux returns the tags for glibc 2.minor and older (PEP 600), with their names from before.
func manylinux(minor int, arch string) []string {
	oldest := 17
	if arch == "x86_64" || arch == "i686" {
		oldest = 5
	}
	legacy := map[int]string{17: "manylinux2014_", 12: "manylinux2010_", 5: "manylinux1_"}
	var tags []string
	for v := minor; v >= oldest; v-- {
		tags = append(tags, fmt.Sprintf("manylinux_2_%d_%s", v, arch))
		if name, ok := legacy[v]; ok {
			tags = append(tags, name+arch)
		}
	}
	return append(tags, "linux_"+arch)
}

// musllinux returns the tags for musl major.minor and older (PEP 656).
func musllinux(major, minor int, arch string) []string {
	var tags []string
	for v := minor; v >= 0; v-- {
		tags = append(tags, fmt.Sprintf("musllinux_%d_%d_%s", major, v, arch))
	}
	return append(tags, "linux_"+arch)
}

// macosx returns the tags for macOS major.minor and older, with the multi-architecture formats that hold the
// architecture. From macOS 11 on only the major version counts.
func macosx(major, minor int, arch string) []string {
	formats := []string{arch, "universal2"}
	older := []string{"universal2"}
	if arch == "x86_64" {
		older = []string{arch, "intel", "fat64", "fat32", "universal2", "universal"}
	}
	var tags []string
	for v := major; v >= 11; v-- {
		for _, f := range formats {
			tags = append(tags, fmt.Sprintf("macosx_%d_0_%s", v, f))
		}
	}
	from := 16
	if major == 10 {
		from = minor
	}
	for v := from; v >= 4; v-- {
		for _, f := range older {
			tags = append(tags, fmt.Sprintf("macosx_10_%d_%s", v, f))
		}
	}
	return tags
}
