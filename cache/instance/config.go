package instance

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/server"
)

// Config is one instance, or a family of them.
type Config struct {
	// Name is what clients call the instance; "" is what they get who name none. One * in it stands for any characters but
	// /: "pr-*" makes an instance of every name that begins with pr-, each with a namespace and a quota of its own.
	Name string
	// Parent names the instance that is read through, nil if there is none. Whoever may read this instance reads its
	// parent's blobs and results, too; what is written never reaches the parent.
	Parent *string
	// Quota is how many bytes the namespace may hold, 0 for no limit.
	Quota int64
	// Read, WriteCAS and WriteActions list the principals with that right. Nobody else has it.
	Read, WriteCAS, WriteActions auth.Patterns
}

// allows returns the principals that have a right.
func (c *Config) allows(want server.Access) auth.Patterns {
	switch want {
	case server.Read:
		return c.Read
	case server.WriteCAS:
		return c.WriteCAS
	case server.WriteActions:
		return c.WriteActions
	}
	return nil
}

// Right returns a right's name, as the configuration has it.
func Right(want server.Access) string {
	switch want {
	case server.Read:
		return "read"
	case server.WriteCAS:
		return "write-cas"
	case server.WriteActions:
		return "write-actions"
	}
	return "unknown"
}

// nameForm is what instances may be called: no name can leave a directory, or be mistaken for a part of a resource name.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9_*][A-Za-z0-9._*-]*(/[A-Za-z0-9_*][A-Za-z0-9._*-]*)*$`)

// reserved segments have a meaning in REAPI's resource names, or in the paths of the HTTP protocol.
var reserved = []string{
	"blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs", "ac", "cas",
}

// maxName bounds an instance's name. A namespace may be a directory's name.
const maxName = 128

func checkName(name string) error {
	if name == "" {
		return nil
	}
	if len(name) > maxName || !nameForm.MatchString(name) {
		return fmt.Errorf("instance %.200q: a name has at most %d letters, digits and . _ - in parts separated by /", name, maxName)
	}
	for part := range strings.SplitSeq(name, "/") {
		if slices.Contains(reserved, part) {
			return fmt.Errorf("instance %q: %q has another meaning in resource names", name, part)
		}
	}
	return nil
}

// check says what is wrong with a set of instances.
func check(configs []Config) error {
	byName := map[string]*Config{}
	for i := range configs {
		c := &configs[i]
		if err := checkName(c.Name); err != nil {
			return err
		}
		if strings.Count(c.Name, "*") > 1 {
			return fmt.Errorf("instance %q: one * is allowed", c.Name)
		}
		if byName[c.Name] != nil {
			return fmt.Errorf("instance %q is there twice", c.Name)
		}
		if c.Quota < 0 {
			return fmt.Errorf("instance %q: the quota is negative", c.Name)
		}
		byName[c.Name] = c
	}
	for i := range configs {
		if err := checkParents(&configs[i], byName); err != nil {
			return err
		}
	}
	return nil
}

// maxDepth is how many instances may be read through one: each adds a question to a miss.
const maxDepth = 4

func checkParents(c *Config, byName map[string]*Config) error {
	depth := 0
	for at := c; at.Parent != nil; depth++ {
		parent := byName[*at.Parent]
		switch {
		case strings.Contains(*at.Parent, "*"):
			return fmt.Errorf("instance %q: its parent %q is a pattern: name one instance", at.Name, *at.Parent)
		case parent == nil:
			return fmt.Errorf("instance %q: its parent %q is not configured", at.Name, *at.Parent)
		case depth == maxDepth:
			return fmt.Errorf("instance %q: it has more than %d parents, or is its own", c.Name, maxDepth)
		}
		at = parent
	}
	return nil
}

// matcher finds the configuration of a name: an exact name first, then the longest pattern.
type matcher struct {
	configs  []*Config
	exact    map[string]*Config
	patterns []pattern
}

type pattern struct {
	before, after string
	config        *Config
}

func newMatcher(configs []Config) matcher {
	m := matcher{exact: map[string]*Config{}}
	for i := range configs {
		c := &configs[i]
		m.configs = append(m.configs, c)
		before, after, ok := strings.Cut(c.Name, "*")
		if !ok {
			m.exact[c.Name] = c
			continue
		}
		m.patterns = append(m.patterns, pattern{before, after, c})
	}
	slices.SortStableFunc(m.patterns, func(a, b pattern) int {
		return len(b.config.Name) - len(a.config.Name)
	})
	return m
}

var errUnknown = errors.New("the configuration has no such instance")

func (m *matcher) find(name string) (*Config, error) {
	if c := m.exact[name]; c != nil {
		return c, nil
	}
	for _, p := range m.patterns {
		rest, ok := strings.CutPrefix(name, p.before)
		if !ok {
			continue
		}
		middle, ok := strings.CutSuffix(rest, p.after)
		if !ok || middle == "" || strings.ContainsAny(middle, "/*") {
			continue
		}
		return p.config, checkName(name)
	}
	return nil, fmt.Errorf("instance %.200q: %w", name, errUnknown)
}
