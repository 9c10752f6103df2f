package zygote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// span is a range of addresses: where it starts, and its length.
type span [2]uint64

// maxCopied is how much memory, in bytes, a version is given a copy of before it is known what it runs.
const maxCopied = 64 << 20

// A process can have mapped terabytes that it never touches, by mistake or to have whoever looks at them run out of memory.
const (
	maxLookedAt  = 64 << 30 // bytes of its memory
	pagemapPiece = 64 << 10 // bytes of the pagemap at once, 8 for each page
)

// copied returns the memory that a version has written to and its zygote has, too, since it was forked: it has copies of
// its own of those pages. What the next version writes to until it is ready is much the same.
func copied(zygote, version int) ([]span, error) {
	theirs, err := writable(zygote)
	if err != nil {
		return nil, err
	}
	own, err := writable(version)
	if err != nil {
		return nil, err
	}
	pages, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", version))
	if err != nil {
		return nil, err
	}
	defer pages.Close()
	size := uint64(os.Getpagesize())
	var found []span
	total, looked := uint64(0), uint64(0)
	entries := make([]byte, pagemapPiece)
	for _, s := range overlap(own, theirs) {
		for at, end := s[0], s[0]+s[1]; at < end; {
			n := min((end-at)/size, pagemapPiece/8)
			if looked += n * size; looked > maxLookedAt {
				return found, nil
			}
			if _, err := pages.ReadAt(entries[:n*8], int64(at/size*8)); err != nil {
				if errors.Is(err, io.EOF) { // it has ended
					return nil, nil
				}
				return nil, err
			}
			for i := range n {
				if !exclusive(binary.NativeEndian.Uint64(entries[8*i:])) {
					continue
				}
				if total += size; total > maxCopied {
					return found, nil
				}
				found = extend(found, at+i*size, size)
			}
			at += n * size
		}
	}
	return found, nil
}

// extend adds a page to spans that are in the order of addresses.
func extend(found []span, at, size uint64) []span {
	if n := len(found); n > 0 && found[n-1][0]+found[n-1][1] == at {
		found[n-1][1] += size
		return found
	}
	return append(found, span{at, size})
}

// exclusive reports whether an entry of a pagemap is of a page in memory that no other process has, and that is not of a
// file; see proc_pid_pagemap(5).
func exclusive(entry uint64) bool {
	const present, file, exclusive = 1 << 63, 1 << 61, 1 << 56
	return entry&present != 0 && entry&exclusive != 0 && entry&file == 0
}

// writable lists the private memory of a process that it may write to, in the order of addresses; see proc_pid_maps(5).
func writable(pid int) ([]span, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	var found []span
	for line := range strings.Lines(string(b)) {
		var from, to uint64
		var permissions string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &permissions); err != nil {
			return nil, fmt.Errorf("/proc/%d/maps has a line %q: %w", pid, line, err)
		}
		if len(permissions) == 4 && permissions[1] == 'w' && permissions[3] == 'p' {
			found = append(found, span{from, to - from})
		}
	}
	return found, nil
}

// overlap returns what is in both of two lists, each in the order of addresses.
func overlap(a, b []span) []span {
	var both []span
	for len(a) > 0 && len(b) > 0 {
		from, end := max(a[0][0], b[0][0]), min(a[0][0]+a[0][1], b[0][0]+b[0][1])
		if from < end {
			both = append(both, span{from, end - from})
		}
		if a[0][0]+a[0][1] == end {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}

// copyAhead has the versions that are forked ahead from now on have copies of their own of that memory which a version of
// the zygote's has copied by the time when it is ready: each copy is a page fault less to wait for.
func (z *Zygote) copyAhead(version int) error {
	if !z.copies.CompareAndSwap(false, true) {
		return nil
	}
	spans, err := copied(z.process.Pid, version)
	if err != nil || len(spans) == 0 {
		z.copies.Store(false)
		return err
	}
	return z.ask(copyRequest, spans)
}
