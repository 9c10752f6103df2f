package venv

import (
	"fmt"
	"regexp"
	"strings"

	pep440 "github.com/aquasecurity/go-pep440-version"
)

// wheelName is a wheel's file name, taken apart (PEP 427).
type wheelName struct {
	file, project, version string
}

// filePart is what may stand between the hyphens of a wheel's file name.
var filePart = regexp.MustCompile(`^[\pL\pN._+!]+$`)

func parseFilename(file string) (wheelName, error) {
	refused := func(why string) (wheelName, error) {
		return wheelName{}, fmt.Errorf("%w: %q: %s", ErrWheel, file, why)
	}
	stem, ok := strings.CutSuffix(file, ".whl")
	if !ok {
		return refused("the file name does not end in .whl")
	}
	parts := strings.Split(stem, "-")
	if len(parts) != 5 && len(parts) != 6 {
		return refused("the file name is not NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl")
	}
	for _, p := range parts {
		if !filePart.MatchString(p) {
			return refused("the file name holds a character that is not allowed there")
		}
	}
	return wheelName{file, parts[0], parts[1]}, nil
}

// refuse returns the error that says why the wheel is not unpacked; member is "" if no one member is to blame.
func (n wheelName) refuse(member, format string, args ...any) error {
	where := n.file
	if member != "" {
		where += fmt.Sprintf(": member %q", member)
	}
	return fmt.Errorf("%w: %s: %w", ErrWheel, where, fmt.Errorf(format, args...))
}

// matches reports whether a directory NAME-VERSION.dist-info is that of the wheel.
func (n wheelName) matches(distInfo string) bool {
	project, version, ok := strings.Cut(strings.TrimSuffix(distInfo, ".dist-info"), "-")
	return ok && NormalizeName(project) == NormalizeName(n.project) && sameVersion(version, n.version)
}

var separators = regexp.MustCompile(`[-_.]+`)

// NormalizeName returns a project's name in the form in which names are compared (PEP 503).
func NormalizeName(name string) string {
	return strings.ToLower(separators.ReplaceAllString(name, "-"))
}

// sameVersion compares versions as PEP 440 does. In file names "_" stands for "-" and, from older tools, for "+".
func sameVersion(a, b string) bool {
	if a == b {
		return true
	}
	for _, escaped := range []string{"-", "+"} {
		va, errA := pep440.Parse(strings.ReplaceAll(a, "_", escaped))
		vb, errB := pep440.Parse(strings.ReplaceAll(b, "_", escaped))
		if errA == nil && errB == nil && va.Equal(vb) {
			return true
		}
	}
	return false
}
