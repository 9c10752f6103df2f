package lock

import (
	"fmt"
	"strings"

	version "github.com/aquasecurity/go-pep440-version"
)

// oldNames are variables as they were called before PEP 508.
var oldNames = map[string]string{
	"os.name": "os_name", "sys.platform": "sys_platform", "platform.version": "platform_version",
	"platform.machine": "platform_machine", "platform.python_implementation": "platform_python_implementation",
	"python_implementation": "platform_python_implementation",
}

// compare evaluates one comparison of a marker.
func compare(left token, op string, right token, env *environment) (bool, error) {
	if set, ok := env.set(right); ok {
		if left.kind != quoted || op != "in" && op != "not in" {
			return false, fmt.Errorf(`%s is used as in "name" in %s`, right.text, right.text)
		}
		return set[NormalizeName(left.text)] == (op == "in"), nil
	}
	if left.kind == word && left.text == "extra" || right.kind == word && right.text == "extra" {
		return compareExtra(left, op, right, env)
	}
	l, err := env.value(left)
	if err != nil {
		return false, err
	}
	r, err := env.value(right)
	if err != nil {
		return false, err
	}
	switch op {
	case "in":
		return strings.Contains(r, l), nil
	case "not in":
		return !strings.Contains(r, l), nil
	}
	if isVersion(left) || isVersion(right) {
		if ok, err := compareVersions(l, op, r); err == nil {
			return ok, nil
		}
	}
	switch op {
	case "==", "===":
		return l == r, nil
	case "!=":
		return l != r, nil
	case "<", "<=", ">", ">=":
		return compareStrings(l, op, r), nil
	}
	return false, fmt.Errorf("%q cannot be compared with %q by %s", l, r, op)
}

// set returns the set that a variable of PEP 751 stands for.
func (e *environment) set(t token) (map[string]bool, bool) {
	if t.kind != word {
		return nil, false
	}
	switch t.text {
	case "extras":
		return e.extras, true
	case "dependency_groups":
		return e.groups, true
	}
	return nil, false
}

// compareExtra evaluates `extra == "name"` as PEP 508 has it: with several extras wanted, whether it is one of them.
func compareExtra(left token, op string, right token, env *environment) (bool, error) {
	name := right
	if right.kind == word {
		name = left
	}
	if name.kind != quoted {
		return false, fmt.Errorf("extra is compared with %q, which is no string", name.text)
	}
	wanted := env.extras[NormalizeName(name.text)]
	switch op {
	case "==":
		return wanted, nil
	case "!=":
		return !wanted, nil
	}
	return false, fmt.Errorf("extra cannot be compared by %s", op)
}

func (e *environment) value(t token) (string, error) {
	if t.kind == quoted {
		return t.text, nil
	}
	name := t.text
	if n, ok := oldNames[name]; ok {
		name = n
	}
	v, ok := e.vars[name]
	if !ok {
		return "", fmt.Errorf("unknown variable %q", t.text)
	}
	return v, nil
}

// isVersion reports whether a variable holds a version, so that it is compared as one.
func isVersion(t token) bool {
	switch t.text {
	case "python_version", "python_full_version", "implementation_version", "platform_release", "platform_version":
		return t.kind == word
	}
	return false
}

func compareVersions(l, op, r string) (bool, error) {
	s, err := version.NewSpecifiers(op+r, version.WithPreRelease(true))
	if err != nil {
		return false, err
	}
	v, err := version.Parse(l)
	if err != nil {
		return false, err
	}
	return s.Check(v), nil
}

func compareStrings(l, op, r string) bool {
	switch op {
	case "<":
		return l < r
	case "<=":
		return l <= r
	case ">":
		return l > r
	}
	return l >= r
}
