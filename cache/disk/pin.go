package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
)

// Pin keeps the blobs and ActionResults named by ds from eviction until Unpin, or until the same name is pinned to
// others. They may be pinned before they are stored. Nobody else may have kept those that were there before the call:
// who relies on them asks FindMissing after it.
func (s *Store) Pin(ctx context.Context, pin string, ds []digest.Digest) error {
	path, err := s.pinPath(pin)
	if err != nil {
		return err
	}
	ds = slices.Clone(ds)
	slices.SortFunc(ds, digest.Digest.Compare)
	var b strings.Builder
	for _, d := range slices.Compact(ds) {
		if err := checkDigest(d); err != nil {
			return fmt.Errorf("pin %s: %w", pin, err)
		}
		b.WriteString(d.String() + "\n")
	}
	// A pin that says the same already needs no write, which a full disk would not allow.
	if old, err := os.ReadFile(path); err == nil && string(old) == b.String() {
		return nil
	}
	// Under the lock, so that no eviction is under way that has read the pins before.
	err = s.withLedger(ctx, func(l *ledger) error {
		l.NextEviction = 0
		return s.writeFile(path, []byte(b.String()))
	})
	if err != nil {
		return fmt.Errorf("pin %s: %w", pin, s.explain(err))
	}
	return nil
}

// Unpin removes a pin. One that does not exist is removed already.
func (s *Store) Unpin(ctx context.Context, pin string) error {
	path, err := s.pinPath(pin)
	if err != nil {
		return err
	}
	err = s.withLedger(ctx, func(l *ledger) error {
		l.NextEviction = 0
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("unpin %s: %w", pin, s.explain(err))
	}
	return nil
}

// pinPath returns the file of a pin. Names are file names, so that a person can read the directory.
func (s *Store) pinPath(pin string) (string, error) {
	if pin == "" || len(pin) > 200 || pin[0] == '.' || strings.ContainsAny(pin, "/\\\x00\n") {
		return "", fmt.Errorf("pin name %.80q is not a file name of up to 200 characters without a leading dot", pin)
	}
	return s.path("pins", pin), nil
}

// pinned returns all pinned digests. It fails rather than let a damaged pin give up what it protects.
func (s *Store) pinned() (map[digest.Digest]bool, error) {
	files, err := os.ReadDir(s.path("pins"))
	if err != nil {
		return nil, err
	}
	pinned := make(map[digest.Digest]bool)
	for _, f := range files {
		path := s.path("pins", f.Name())
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			d, err := digest.Parse(strings.TrimSuffix(line, "\n"))
			if err != nil {
				return nil, fmt.Errorf("%s is damaged, unpin it or pin it again: %w", path, err)
			}
			pinned[d] = true
		}
	}
	return pinned, nil
}

// Pins returns the names of the pins, sorted.
func (s *Store) Pins() ([]string, error) {
	files, err := os.ReadDir(s.path("pins"))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Name()
	}
	return names, nil
}
