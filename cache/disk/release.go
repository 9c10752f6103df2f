package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
)

// Release removes pins, and deletes what they alone kept: it costs what the pins name, and no look at all that the store
// holds. Pins that do not exist are removed already.
func (s *Store) Release(ctx context.Context, pins []string) (Collected, error) {
	if len(pins) == 0 {
		return Collected{}, nil
	}
	var c Collected
	err := s.withLedger(ctx, func(l *ledger) (err error) {
		l.NextEviction = 0
		c, err = l.release(pins)
		return err
	})
	if err != nil {
		return c, fmt.Errorf("release %d pins: %w", len(pins), s.explain(err))
	}
	return c, nil
}

func (l *ledger) release(pins []string) (Collected, error) {
	paths := map[string]bool{}
	for _, pin := range pins {
		path, err := l.store.pinPath(pin)
		if err != nil {
			return Collected{}, err
		}
		paths[path] = true
	}
	named, err := l.releasable(paths)
	if err != nil {
		return Collected{}, err
	}
	// Pins first: what is left of a release that ends early is without a pin, for the next GC.
	for path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Collected{}, err
		}
	}
	var c Collected
	for d := range named {
		for _, a := range areas {
			if err := l.discard(name{a, d}, &c); err != nil {
				return c, err
			}
		}
	}
	c.LeftBytes = l.Bytes
	return c, nil
}

// releasable returns what the pins at paths name and no other pin does.
func (l *ledger) releasable(paths map[string]bool) (map[digest.Digest]bool, error) {
	named := map[string]bool{}
	for path := range paths {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			named[line] = true
		}
	}
	all, err := l.store.Pins()
	if err != nil {
		return nil, err
	}
	for _, pin := range all {
		path := l.store.path("pins", pin)
		if paths[path] {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			delete(named, line)
		}
	}
	digests := make(map[digest.Digest]bool, len(named))
	for line := range named {
		d, err := digest.Parse(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("a pin is damaged, pin it again: %w", err)
		}
		digests[d] = true
	}
	return digests, nil
}

// discard deletes a file, if it is there.
func (l *ledger) discard(n name, c *Collected) error {
	path := n.path(l.store)
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return err
	}
	l.Bytes -= fi.Size()
	l.Files--
	c.Deleted++
	c.DeletedBytes += fi.Size()
	return nil
}
