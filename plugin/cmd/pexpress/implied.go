package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/plugin/project"
	"github.com/pexpress/pexpress/plugin/resolve"
)

// impliedLock stands in for a lock that is not there: a requirements.txt in which each line pins a version and its
// hashes says all that a lock says but the URLs. It is completed once and kept by the content it follows from.
func (s *session) impliedLock(ctx context.Context, loc *project.Location) ([]byte, error) {
	dir := filepath.Join(s.project.Dir, filepath.Dir(loc.Lock))
	path := filepath.Join(dir, "requirements.txt")
	content, err := durable.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if s.project.CheckLocked(loc, nil, func(string) (bool, error) { return true, nil }) == nil {
			return []byte(emptyLock), nil // nothing is required: the standard library is enough
		}
		return nil, inputErrorf("no %s in %s: run 'pexpress lock' to make it", filepath.Base(loc.Lock), dir)
	}
	if err != nil {
		return nil, err
	}
	if line := firstUnlocked(string(content)); line != "" {
		return nil, inputErrorf("no %s in %s, and %q in requirements.txt pins no version and hash: run 'pexpress lock'",
			filepath.Base(loc.Lock), dir, line)
	}
	req := s.lockRequest(loc, []string{"requirements.txt"}, false)
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n%s", req.Python, strings.Join(req.Platforms, ","), content)
	kept := filepath.Join(s.app.stateDir(), "locks", hex.EncodeToString(h.Sum(nil)[:16])+".toml")
	if b, err := durable.ReadFile(kept); !errors.Is(err, os.ErrNotExist) {
		return b, err
	}
	b, err := resolve.Lock(ctx, req)
	if err != nil {
		return nil, lockError(err)
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return nil, err
	}
	return b, durable.WriteFile(kept, b, 0o600)
}

const emptyLock = "lock-version = \"1.0\"\ncreated-by = \"pexpress\"\npackages = []\n"

// firstUnlocked returns the first requirement that has no exact version or no hash, or that stands in another file;
// "" if there is none.
func firstUnlocked(requirements string) string {
	for _, line := range strings.Split(strings.ReplaceAll(requirements, "\\\n", " "), "\n") {
		line, _, _ = strings.Cut(line, " #")
		line = strings.TrimSpace(line)
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "-r"), strings.HasPrefix(line, "-c"), strings.HasPrefix(line, "-e"),
			strings.HasPrefix(line, "--requirement"), strings.HasPrefix(line, "--constraint"), strings.HasPrefix(line, "--editable"):
			return line
		case strings.HasPrefix(line, "-"):
		case !strings.Contains(line, "=="), !strings.Contains(line, "--hash="):
			name, _, _ := strings.Cut(line, "--hash")
			return strings.TrimSpace(name)
		}
	}
	return ""
}
