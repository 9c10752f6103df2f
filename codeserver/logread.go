package codeserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// logLine is one line of a log.
type logLine struct {
	at   time.Time
	text string
}

// time returns when the line was written, nil if that is not known.
func (l logLine) time() *timestamppb.Timestamp {
	if l.at.IsZero() {
		return nil
	}
	return timestamppb.New(l.at)
}

func parseLine(s string) logLine {
	if len(s) > len(timeLayout) {
		if t, err := time.Parse(timeLayout, s[:len(timeLayout)]); err == nil {
			return logLine{t, s[len(timeLayout)+1:]}
		}
	}
	return logLine{text: s}
}

// logReader sends the lines of a log.
type logReader struct {
	path string
	book *logbook // nil when nobody writes
	send func(logLine) error

	file   *os.File
	offset int64 // in the file: all before has been read
	cutOff int64 // of the book, when the file was opened
}

// read sends the last lines, all if tail is 0, and with follow those that come until the book is closed.
func (r *logReader) read(ctx context.Context, tail int, follow bool) error {
	defer func() {
		if r.file != nil {
			r.file.Close()
		}
	}()
	for first := true; ; first = false {
		grown, err := r.open()
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		last := 0
		if first {
			last = tail
		}
		if err := r.sendNew(ctx, last); err != nil {
			return err
		}
		if !follow || grown == nil {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// open opens the file, again where it has been cut, at the same line; the channel is closed when more has been written,
// and nil when nothing more will be.
func (r *logReader) open() (grown <-chan struct{}, err error) {
	cutOff := int64(0)
	if r.book != nil {
		r.book.mu.Lock()
		defer r.book.mu.Unlock()
		cutOff, grown = r.book.cutOff, r.book.grown
	}
	if r.file != nil && r.cutOff == cutOff {
		return grown, nil
	}
	if r.file != nil {
		r.file.Close()
		r.offset = max(0, r.offset-(cutOff-r.cutOff))
	}
	r.cutOff = cutOff
	if r.file, err = os.Open(r.path); err != nil {
		return grown, err
	}
	return grown, r.align()
}

// align moves the offset on to the beginning of a line, where it is not there: in a file that another book has cut and
// written to since, the same line is not quite where this one's book has it.
func (r *logReader) align() error {
	if r.offset == 0 {
		return nil
	}
	if _, err := r.file.Seek(r.offset-1, io.SeekStart); err != nil {
		return err
	}
	rest, err := bufio.NewReader(r.file).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	r.offset += int64(max(0, len(rest)-1))
	return err
}

// sendNew sends the complete lines from the offset on, only the last ones if last is not 0.
func (r *logReader) sendNew(ctx context.Context, last int) error {
	if _, err := r.file.Seek(r.offset, io.SeekStart); err != nil {
		return err
	}
	var waiting []string // at most last
	b := bufio.NewReaderSize(r.file, 64<<10)
	for {
		line, err := b.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		r.offset += int64(len(line))
		if line = strings.TrimSuffix(line, "\n"); last > 0 {
			if waiting = append(waiting, line); len(waiting) > last {
				waiting = waiting[1:]
			}
		} else if err := r.send(parseLine(line)); err != nil {
			return err
		}
	}
	for _, line := range waiting {
		if err := r.send(parseLine(line)); err != nil {
			return err
		}
	}
	return nil
}
