package pack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/pexpress/pexpress/cache/durable"
)

// names maps namespaces to numbers. They are few, and never forgotten: records hold the number. It has a lock of its own,
// so that a new name, which has to be synced, stops nobody who reads or writes.
type names struct {
	path string
	mu   sync.Mutex
	list []string // by number
}

const (
	namesFile = "namespaces.json"
	maxNames  = 1 << 16 // a record has 16 bits for the number
)

// Namespace returns the namespace of that name, a new one if need be.
func (s *Store) Namespace(name string) (*Cache, error) {
	ns, err := s.names.number(name)
	if err != nil {
		return nil, err
	}
	return &Cache{s, ns}, nil
}

// Lookup returns the namespace of that name if there is one. It makes none: this is for whoever only reads.
func (s *Store) Lookup(name string) (*Cache, bool) {
	ns, ok := s.names.find(name)
	if !ok {
		return nil, false
	}
	return &Cache{s, ns}, true
}

func (n *names) read() error {
	b, err := os.ReadFile(n.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &n.list)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.path, err)
	}
	return nil
}

func (n *names) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.list)
}

// find returns a namespace's number, if it has one.
func (n *names) find(name string) (uint16, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.Index(n.list, name)
	return uint16(max(0, i)), i >= 0
}

// number returns a namespace's number, a new one if need be.
func (n *names) number(name string) (uint16, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := slices.Index(n.list, name); i >= 0 {
		return uint16(i), nil
	}
	if len(n.list) == maxNames {
		return 0, fmt.Errorf("namespace %q: the store has %d already, more than it can tell apart", name, len(n.list))
	}
	list := append(slices.Clone(n.list), name)
	b, err := json.Marshal(list)
	if err != nil {
		return 0, err
	}
	if err := durable.WriteFile(n.path, b, 0o600); err != nil {
		return 0, full(err)
	}
	n.list = list
	return uint16(len(list) - 1), nil
}

// of returns the name of a number that a record holds.
func (n *names) of(ns uint16) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.list[ns]
}
