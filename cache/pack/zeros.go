package pack

import (
	"errors"
	"slices"

	"github.com/pexpress/pexpress/cache"
)

// zeros is what a segment is extended with.
var zeros [256 << 10]byte

// write writes chunks of n bytes behind the records.
func (g *segment) write(iov [][]byte, n int64) error {
	z := g.ahead(n)
	if z == nil {
		return writeAll(g.f, iov, g.size)
	}
	err := writeAll(g.f, append(slices.Clone(iov), z), g.size)
	if errors.Is(full(err), cache.ErrFull) { // for the zeros, perhaps; those that are missing slow syncs down, no more
		err = writeAll(g.f, iov, g.size)
	}
	return err
}

// ahead returns zeros to be written behind n bytes of small chunks that would make the file longer. The commits that
// follow then overwrite them: a sync that changes no length and takes no new blocks needs no journal of the file system,
// and is about twice as fast. No record is made of zeros, so what is left of them after a crash ends the segment.
func (g *segment) ahead(n int64) []byte {
	if end := g.size + n; end > g.zeroed && n <= int64(len(zeros))/8 {
		g.zeroed = end + int64(len(zeros))
		return zeros[:]
	}
	return nil
}

// trim cuts off the zeros of a segment that will not grow. One that is not trimmed loses nothing but the space.
func (g *segment) trim() {
	if g.zeroed > g.size && g.f.Truncate(g.size) == nil {
		g.zeroed = g.size
	}
}
