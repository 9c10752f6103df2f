package main

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// sample is the durations of one side of a row.
type sample []time.Duration

func (s sample) sorted() sample {
	t := slices.Clone(s)
	slices.Sort(t)
	return t
}

func (s sample) median() time.Duration { return s.sorted()[len(s)/2] }

func (s sample) max() time.Duration { return slices.Max(s) }

// percentile returns the smallest duration that so many of 100 do not exceed.
func (s sample) percentile(p int) time.Duration { return s.sorted()[(len(s)*p+99)/100-1] }

// String returns the median and, in brackets, the extremes.
func (s sample) String() string {
	return fmt.Sprintf("%s [%s to %s]", words(s.median()), words(slices.Min(s)), words(s.max()))
}

func words(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// row is one budget: what was measured and what is asked for.
type row struct {
	name, ours, peer, ratio, budget string
}

// String returns the row as a paragraph that reads well in a terminal and in a note.
func (r row) String() string {
	s := fmt.Sprintf("%s\n  pexpress  %s", r.name, r.ours)
	if r.peer != "" {
		s += "\n  peer      " + r.peer
	}
	if r.ratio != "" {
		s += "\n  ratio     " + r.ratio
	}
	return s + "\n  budget    " + r.budget + "\n"
}

// times returns how much longer b took than a.
func times(a, b sample) string {
	return fmt.Sprintf("%.1f x", float64(b.median())/float64(a.median()))
}

// noise times a fixed piece of work, so that a reader can tell a change of the code from one of the machine.
func (b *bench) noise() {
	buf := make([]byte, 32<<20)
	start := time.Now()
	sha256.Sum256(buf)
	b.fixed = append(b.fixed, time.Since(start))
}

func (b *bench) noiseLine() string {
	s := b.fixed.sorted()
	return fmt.Sprintf("noise: a fixed piece of work took %s between the runs (n = %d); its slowest tenth was %.2f x its median",
		b.fixed, len(s), float64(s[len(s)*9/10])/float64(s.median()))
}
