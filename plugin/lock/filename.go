package lock

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/pexpress/pexpress/cache/lazy"
)

// filename is what a wheel's file name says (PEP 427).
type filename struct {
	name, version string
	build         int
	tags          []string // expanded: py2.py3-none-any is two
}

// wheelName is what a wheel may be called: PEP 427 escapes everything else, and what is not escaped ends in file names and
// on terminals.
var wheelName = lazy.Regexp(`^[A-Za-z0-9_.+!-]+$`)

func parseFilename(s string) (filename, error) {
	parts := strings.Split(strings.TrimSuffix(s, ".whl"), "-")
	if !strings.HasSuffix(s, ".whl") || len(parts) != 5 && len(parts) != 6 || !wheelName().MatchString(s) {
		return filename{}, fmt.Errorf("%.200q is not a wheel's file name, NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl", s)
	}
	f := filename{name: NormalizeName(parts[0]), version: parts[1]}
	if len(parts) == 6 {
		digits := parts[2]
		if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
			digits = digits[:i]
		}
		f.build, _ = strconv.Atoi(digits)
		f.build++ // a build number of 0 still comes after none
	}
	tag := parts[len(parts)-3:]
	for _, python := range strings.Split(tag[0], ".") {
		for _, abi := range strings.Split(tag[1], ".") {
			for _, platform := range strings.Split(tag[2], ".") {
				f.tags = append(f.tags, python+"-"+abi+"-"+platform)
			}
		}
	}
	return f, nil
}

func buildOf(name string) int {
	f, _ := parseFilename(name)
	return f.build
}

// rank returns the place of the wheel's best tag among the target's.
func (f filename) rank(ranks map[string]int) (int, bool) {
	best := math.MaxInt
	for _, t := range f.tags {
		if r, ok := ranks[t]; ok {
			best = min(best, r)
		}
	}
	return best, best != math.MaxInt
}
