package worker

import (
	"bytes"
	"fmt"
	"time"
)

// What a version may write to its log: so much at once, and so much a second for long.
const (
	logBurst = 8 << 20
	logRate  = 1 << 20
)

// Beyond that its output is still read, but not faster than so: a version that floods it waits, and neither the disk nor the
// processor that reads is the others' loss.
const (
	floodPiece = 64 << 10
	floodPause = 5 * time.Millisecond
)

// flood hands on the lines of a version that writes in moderation, and leaves out those of one that does not, until it has
// been quiet enough for a while.
type flood struct {
	log   func([]byte)
	now   func() time.Time
	sleep func(time.Duration)

	room    int // bytes that it may write now
	at      time.Time
	dropped int      // lines, since it is too much; 0 while it is not
	read    int      // bytes since the last pause
	last    [][]byte // of the lines that were dropped: what a version says before it ends is what people look for
}

// The last lines of a flood that are kept after all, and how much of each.
const (
	floodLast = 40
	floodLine = 1 << 10
)

func newFlood(log func([]byte), now func() time.Time, sleep func(time.Duration)) *flood {
	return &flood{log: log, now: now, sleep: sleep, room: logBurst, at: now()}
}

func (f *flood) line(line []byte) {
	size := len(line) + 1
	if size > f.room || f.dropped > 0 {
		f.refill()
	}
	switch {
	case f.dropped == 0 && size <= f.room:
		f.room -= size
		f.log(line)
	case f.dropped > 0 && f.room >= logBurst/2:
		f.end()
		f.room -= size
		f.log(line)
	default:
		f.keep(line)
		if f.dropped++; f.dropped == 1 {
			f.log(fmt.Appendf(nil, OwnLine+"the version writes more than %d MiB a second for long: lines are left out from here on", logRate>>20))
		}
		if f.read += size; f.read >= floodPiece {
			f.read = 0
			f.sleep(floodPause)
		}
	}
}

func (f *flood) refill() {
	now := f.now()
	f.room = min(logBurst, f.room+int(min(now.Sub(f.at).Seconds(), logBurst/logRate)*logRate))
	f.at = now
}

// keep keeps a line that is dropped until there are enough after it.
func (f *flood) keep(line []byte) {
	if len(f.last) == floodLast {
		f.last = append(f.last[:0], f.last[1:]...)
	}
	f.last = append(f.last, bytes.Clone(line[:min(len(line), floodLine)]))
}

// end says how many lines were left out, and what the last ones were.
func (f *flood) end() {
	if f.dropped > 0 {
		f.log(fmt.Appendf(nil, OwnLine+"%d lines were left out; the last of them, up to %d:", f.dropped, floodLast))
		for _, line := range f.last {
			f.log(line)
		}
	}
	f.dropped, f.last = 0, nil
}
