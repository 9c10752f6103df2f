package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ledger is the count of what the store holds, in the hands of the one process that has the ledger's lock.
//
// The lock is held for each change of what is there. Before the change the record on disk is marked unclean, after it
// the new count is written, so that whoever takes the lock from a killed process knows that the count is off and
// counts the files again. Records are not synced: after a crash of the machine the boot's id is another one, and the
// files are counted as well. So to store a blob costs two small writes and never a scan.
type ledger struct {
	store *Store
	file  *os.File
	record
}

type record struct {
	Bytes int64  `json:"bytes"`
	Files int64  `json:"files"`
	Boot  string `json:"boot"`
	Clean bool   `json:"clean"`
	// NextEviction is the size up to which eviction is known to be futile, as what is there is pinned.
	NextEviction int64 `json:"next_eviction"`
}

// recordSize is the fixed size of a record: one write overwrites all of the one before.
const recordSize = 256

// withLedger calls change while no other process changes what the store holds. The record is written in any case, for
// a change that failed halfway is counted as far as it went.
func (s *Store) withLedger(ctx context.Context, change func(*ledger) error) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path("ledger"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close() // drops the lock
	if err := lockLedger(ctx, f); err != nil {
		return err
	}
	l := &ledger{store: s, file: f}
	if err := l.load(ctx); err != nil {
		return fmt.Errorf("count the files of the cache: %w", err)
	}
	if err := l.save(false); err != nil {
		return err
	}
	return errors.Join(change(l), l.save(true))
}

// lockLedger waits for other processes. It asks again and again in place of waiting in the kernel, which would keep a
// caller that has given up.
func lockLedger(ctx context.Context, f *os.File) error {
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// load reads the record, and counts the files where it cannot be relied on.
func (l *ledger) load(ctx context.Context) error {
	b := make([]byte, recordSize)
	n, err := l.file.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if json.Unmarshal(b[:n], &l.record) == nil && l.Clean && l.Boot == l.store.boot {
		return nil
	}
	entries, err := l.store.scan(ctx)
	if err != nil {
		return err
	}
	l.count(entries)
	return nil
}

// count makes the record say what was found.
func (l *ledger) count(entries []entry) {
	l.record = record{Files: int64(len(entries))}
	for _, e := range entries {
		l.Bytes += e.size
	}
}

func (l *ledger) save(clean bool) error {
	l.Clean, l.Boot = clean, l.store.boot
	b, err := json.Marshal(l.record)
	if err != nil {
		return err
	}
	b = append(b, bytes.Repeat([]byte{' '}, recordSize-1-len(b))...)
	_, err = l.file.WriteAt(append(b, '\n'), 0)
	return err
}
