// Package fastcdc splits content into chunks at places that the content itself decides, so that two blobs that are
// alike in parts have those parts' chunks in common: FastCDC as of 2020, with the parameters of the Remote Execution
// API's FastCdc2020Params (normalization level 2). See Wen Xia et al., "The Design of Fast Content-Defined Chunking for
// Data Deduplication Based Storage Systems", IEEE TPDS 2020.
package fastcdc

import (
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// Params say where content is cut. Parties that use the same ones find the same chunks.
type Params struct {
	Average int    // expected size of a chunk, a power of two
	Min     int    // no chunk but the last one is smaller; 0 means a quarter of Average
	Max     int    // no chunk is larger; 0 means four times Average
	Seed    uint64 // changes where the cuts are, so that chunk sizes tell a listener less
}

// Bounds of the average, from REAPI.
const (
	MinAverage = 1 << 10
	MaxAverage = 8 << 20
)

// Chunker splits what it reads.
type Chunker struct {
	r        io.Reader
	p        Params
	gear     *[256]uint64
	hard     uint64 // mask below the average size: more bits, fewer cuts
	easy     uint64 // mask above it
	buf      []byte
	from, to int // what of buf is read and not yet handed out
	err      error
}

// New returns a Chunker of r's bytes. It holds p.Max bytes and reads ahead that far.
func New(r io.Reader, p Params) (*Chunker, error) {
	p, err := p.complete()
	if err != nil {
		return nil, err
	}
	c := &Chunker{r: r, p: p, gear: gears(p.Seed), buf: make([]byte, p.Max)}
	level := bits.TrailingZeros(uint(p.Average))
	c.hard, c.easy = masks[level+normalization], masks[level-normalization]
	return c, nil
}

func (p Params) complete() (Params, error) {
	if p.Average < MinAverage || p.Average > MaxAverage || p.Average&(p.Average-1) != 0 {
		return p, fmt.Errorf("average chunk size %d is not a power of two from %d to %d", p.Average, MinAverage, MaxAverage)
	}
	if p.Min == 0 {
		p.Min = p.Average / 4
	}
	if p.Max == 0 {
		p.Max = p.Average * 4
	}
	if p.Min < 0 || p.Min > p.Average || p.Max < p.Average {
		return p, fmt.Errorf("chunk sizes %d, %d and %d are not in order", p.Min, p.Average, p.Max)
	}
	return p, nil
}

// Next returns the next chunk, which is overwritten by the call after it, and io.EOF after the last one. Empty content
// has no chunks.
func (c *Chunker) Next() ([]byte, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	if c.from == c.to {
		return nil, io.EOF
	}
	n, _ := c.cut(c.buf[c.from:c.to])
	chunk := c.buf[c.from : c.from+n]
	c.from += n
	return chunk, nil
}

// fill reads until the buffer is full or there is no more.
func (c *Chunker) fill() error {
	if c.err == nil && c.from > 0 {
		c.to = copy(c.buf, c.buf[c.from:c.to])
		c.from = 0
	}
	for c.err == nil && c.to < len(c.buf) {
		var n int
		n, c.err = c.r.Read(c.buf[c.to:])
		c.to += n
	}
	if errors.Is(c.err, io.EOF) {
		return nil
	}
	return c.err
}

// cut returns the length of the first chunk of b, which holds Max bytes or all that is left, and the hash there.
//
// The paper looks at two bytes in a round. So does this: the first is judged by masks and gears shifted left by one,
// which comes to the same as a round each, and saves a shift. What it decides, and what the chunks depend on, is that
// rounds begin at even offsets, so that a last odd byte belongs to no round.
func (c *Chunker) cut(b []byte) (int, uint64) {
	if len(b) <= c.p.Min {
		return len(b), 0
	}
	normal := min(c.p.Average, len(b)) / 2 * 2
	end := len(b) / 2 * 2
	var hash uint64
	i := c.p.Min / 2 * 2
	for _, half := range [...]struct {
		end  int
		mask uint64
	}{{normal, c.hard}, {end, c.easy}} {
		mask, shifted := half.mask, half.mask<<1
		for ; i < half.end; i += 2 {
			hash = hash<<2 + c.gear[b[i]]<<1
			if hash&shifted == 0 {
				return i, hash
			}
			hash += c.gear[b[i+1]]
			if hash&mask == 0 {
				return i + 1, hash
			}
		}
	}
	return len(b), hash
}

// gears returns the table of the rolling hash: for each byte the first eight bytes of an MD5. The Remote Execution API
// says "MD5(byte(i))"; its test vectors, and the implementations that it names, repeat the byte 64 times.
func gears(seed uint64) *[256]uint64 {
	var table [256]uint64
	var block [64]byte
	for i := range table {
		for j := range block {
			block[j] = byte(i)
		}
		sum := md5.Sum(block[:])
		table[i] = binary.BigEndian.Uint64(sum[:]) ^ seed
	}
	return &table
}

// normalization is how many bits the masks below and above the average size have more and less than its logarithm.
const normalization = 2

// masks has, at n, the n bits that a hash is judged by: those of the paper's authors' own program, which lie spread out
// on purpose and follow no rule, as do those for larger sizes.
var masks = [...]uint64{
	8:  0x0000001800035300,
	9:  0x0000019000353000,
	10: 0x0000590003530000,
	11: 0x0000d90003530000,
	12: 0x0000d90103530000,
	13: 0x0000d90303530000,
	14: 0x0000d90313530000,
	15: 0x0000d90f03530000,
	16: 0x0000d90303537000,
	17: 0x0000d90703537000,
	18: 0x0000d90707537000,
	19: 0x0000d91707537000,
	20: 0x0000d91747537000,
	21: 0x0000d91767537000,
	22: 0x0000d93767537000,
	23: 0x0000d93777537000,
	24: 0x0000d93777577000,
	25: 0x0000db3777577000,
}
