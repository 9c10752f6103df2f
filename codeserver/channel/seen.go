package channel

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pexpress/pexpress/cache/durable"
)

// seen is what a follower remembers of a channel: the newest pointer that it has seen, and which locations serve what it
// says. What failed is not kept: a restart tries it again.
type seen struct {
	Sequence  int64           `json:"sequence"`
	Content   string          `json:"sha256"` // of the payload
	Locations map[string]bool `json:"locations"`
}

func (f *Follower) path() string { return filepath.Join(f.opts.Dir, f.opts.Name+".json") }

// readSeen reads what was kept. What cannot be read is an error: to begin anew would be to believe any old pointer.
func readSeen(path string) (seen, error) {
	s := seen{}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return seen{Locations: map[string]bool{}}, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("%s keeps which pointer was seen last and cannot be read: %w; remove it to believe any pointer that is signed", path, err)
	}
	if s.Locations == nil {
		s.Locations = map[string]bool{}
	}
	return s, nil
}

func (s seen) write(path string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = durable.WriteFile(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep which pointer was seen last: %w", err)
	}
	return nil
}
