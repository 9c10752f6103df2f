// Package lazy puts off what is seldom needed from the start of a process to its first use.
//
// A builder is a process that lives for tens of milliseconds, and so is a command that finds everything in the cache: what
// their packages make ready when they are initialised is a good part of that.
package lazy

import (
	"regexp"
	"sync"
)

// Regexp returns the regular expression, which is compiled when it is first asked for.
func Regexp(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
