package venv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/once"
)

// unpacked is the content of wheel.json: what an environment needs to know of an unpacked wheel.
type unpacked struct {
	Layout   int               `json:"layout"`
	DistInfo string            `json:"dist_info"`
	Scripts  []script          `json:"scripts,omitempty"`
	Files    map[string]string `json:"files"` // each hashed, by its path beside wheel.json
	Hash     string            `json:"hash"`  // of all that
}

// hash is of all but Hash.
func (u unpacked) hash() string {
	u.Hash = ""
	b, _ := json.Marshal(u) // strings and numbers
	return hashOf(b)
}

// readUnpacked returns what was unpacked in dir; an error says that it does not count.
func readUnpacked(dir string) (*unpacked, error) {
	b, err := readSmall(filepath.Join(dir, "wheel.json"))
	if err != nil {
		return nil, err
	}
	u := new(unpacked)
	if err := json.Unmarshal(b, u); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if u.Layout != layout {
		return nil, fmt.Errorf("%s: made by another version", dir)
	}
	if u.Hash != u.hash() {
		return nil, fmt.Errorf("%s: wheel.json is damaged", dir)
	}
	return u, nil
}

// stage sees to it that the wheel is unpacked, in its place or in tmp; commit does the rest.
func (s *Store) stage(ctx context.Context, w Wheel, name string, cas cache.CAS) error {
	wn, err := parseFilename(w.Filename)
	if err != nil {
		return err
	}
	u, err := once.Do(ctx, &s.wheels, name, func() (*unpacked, error) {
		if u, err := readUnpacked(s.path(name)); err == nil {
			return u, nil
		}
		s.mu.Lock()
		tmp := s.staged[name]
		s.mu.Unlock()
		if tmp != "" {
			if u, err := readUnpacked(tmp); err == nil {
				return u, nil
			}
		}
		return s.unpack(ctx, wn, w, name, "", cas)
	})
	// The blob may have been unpacked under another file name.
	if err == nil && !wn.matches(u.DistInfo) {
		err = wn.refuse(u.DistInfo, "not the name and version of the file name")
	}
	return err
}

// commit makes staged wheels durable, all of them at once, and then visible.
func (s *Store) commit(names []string) error {
	for {
		if more, err := s.commitSome(names); err != nil || !more {
			return err
		}
	}
}

// commitSome commits what is staged when it is called, and reports whether there was any.
func (s *Store) commitSome(names []string) (some bool, err error) {
	durably := map[string]string{}
	s.mu.Lock()
	for _, n := range names {
		if tmp := s.staged[n]; tmp != "" {
			durably[n] = tmp
		}
	}
	s.mu.Unlock()
	if len(durably) == 0 {
		return false, nil
	}
	if err := durable.SyncFS(s.path("tmp")); err != nil {
		return false, err
	}
	var replaced []string
	defer func() {
		for _, old := range replaced {
			_ = os.RemoveAll(old)
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, tmp := range durably {
		if s.staged[n] != tmp {
			continue // somebody else has committed it, or unpacked it once more
		}
		old, err := s.publish(tmp, n)
		if replaced = append(replaced, old); err != nil {
			return false, err
		}
		delete(s.staged, n)
		s.whole[n] = time.Now()
		if what := s.damaged[n]; what != "" {
			s.remade[n] = remade{time.Now(), what}
			delete(s.damaged, n)
		}
	}
	return true, s.syncDir("wheels")
}

// unpack stages a wheel. damaged is what was found of the one that it replaces, "" if it replaces none.
func (s *Store) unpack(ctx context.Context, n wheelName, w Wheel, name, damaged string, cas cache.CAS) (*unpacked, error) {
	f, err := s.spool(ctx, w, cas)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ms, err := n.members(f, w.Digest.Size(), defaultLimits())
	if err != nil {
		return nil, err
	}
	md, err := n.metadata(ms)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(s.path("tmp"), "wheel-")
	if err != nil {
		return nil, err
	}
	u := &unpacked{Layout: layout, DistInfo: md.distInfo, Scripts: md.scripts, Files: make(map[string]string, len(ms))}
	if err := n.writeAll(ctx, ms, md, u, tmp); err != nil {
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	s.mu.Lock()
	before := s.staged[name]
	s.staged[name] = tmp
	if damaged != "" {
		s.damaged[name] = damaged
	}
	s.mu.Unlock()
	_ = os.RemoveAll(before) // what is left of it, the next Open removes
	return u, nil
}

// spool copies the wheel's verified bytes to a file without a name, because a zip is read from its end.
func (s *Store) spool(ctx context.Context, w Wheel, cas cache.CAS) (*os.File, error) {
	rc, err := cas.Get(ctx, w.Digest)
	if err != nil {
		return nil, fmt.Errorf("wheel %s: %w", w.Filename, err)
	}
	defer rc.Close()
	f, err := os.CreateTemp(s.path("tmp"), "spool-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = io.Copy(f, rc)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("wheel %s: %w", w.Filename, err)
	}
	return f, nil
}

// writeAll writes the wheel's files below dir, which is empty, and wheel.json last.
func (n wheelName) writeAll(ctx context.Context, ms []member, md metadata, u *unpacked, dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	made := map[string]bool{dir: true}
	buf := make([]byte, 128<<10)
	for _, m := range ms {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(m.dest))
		if err := mkdirs(filepath.Dir(path), made); err != nil {
			return err
		}
		rec, ok := md.record[m.Name]
		if !ok {
			rec.size = -1
		}
		sum, err := n.write(m, rec, path, buf)
		if err != nil {
			return err
		}
		u.Files[m.dest] = sum
	}
	u.Hash = u.hash()
	b, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "wheel.json"), b, 0o644)
}

// mkdirs makes dir and those above it, except what made holds.
func mkdirs(dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := mkdirs(filepath.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return mkdir(dir)
}

// write makes one file, checks what it wrote against the member's size and RECORD, and returns its hash.
func (n wheelName) write(m member, rec recorded, path string, buf []byte) (string, error) {
	mode := fs.FileMode(0o644)
	if m.exec || strings.HasPrefix(m.dest, "bin/") {
		mode = 0o755
	}
	rc, err := m.Open()
	if err != nil {
		return "", n.refuse(m.Name, "%w", err)
	}
	defer rc.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return "", err
	}
	h := rec.hasher()
	// One byte more than declared is enough to know that the declaration lied.
	size, err := io.CopyBuffer(io.MultiWriter(f, h), io.LimitReader(rc, int64(m.UncompressedSize64)+1), buf)
	if cerr := errors.Join(f.Chmod(mode), f.Close()); cerr != nil {
		return "", cerr
	}
	sum := h.Sum(nil)
	var disk *fs.PathError
	switch {
	case errors.As(err, &disk):
		return "", err
	case err != nil:
		return "", n.refuse(m.Name, "%w", err)
	case size != int64(m.UncompressedSize64):
		return "", n.refuse(m.Name, "its size is not the %d bytes that the archive declares", m.UncompressedSize64)
	case rec.size >= 0 && rec.size != size:
		return "", n.refuse(m.Name, "%d bytes, RECORD says %d", size, rec.size)
	case rec.algorithm != "" && !slices.Equal(sum, rec.sum):
		return "", n.refuse(m.Name, "not the content that RECORD names")
	}
	return hashed(line(cmp.Or(rec.algorithm, "sha256"), sum), size, mode&0o111 != 0), os.Chtimes(path, merkle.ModTime, merkle.ModTime)
}
