package venv

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// repairBytecode removes what is not the bytecode that was made for the wheels. What is missing then is made again by a Fill.
func (s *Store) repairBytecode(ctx context.Context, wheels []Wheel, names []string) error {
	for i, w := range wheels {
		b := &bytecodeCheck{dir: s.path(names[i]), known: s.known(bytecodeOf(names[i])), buf: make([]byte, 128<<10)}
		if err := b.look(ctx); err != nil {
			return err
		}
		if len(b.others) > 0 || len(b.missing) > 0 || b.lost {
			if err := s.removeBytecode(ctx, b); err != nil {
				return err
			}
		}
		if b.damaged != "" {
			s.noteRemade(bytecodeOf(names[i]), b.damaged+" of "+w.Filename)
		} else if !b.known {
			s.noteRemade(bytecodeOf(names[i]), "")
		}
	}
	return nil
}

// bytecodeCheck compares a wheel's bytecode with what was made.
type bytecodeCheck struct {
	dir     string // where the wheel is unpacked
	known   bool   // what looks as it was made is not read
	buf     []byte
	others  []string        // paths of what is not as it was made
	missing map[string]bool // names, relative to site, of what was made and is not there as it was
	damaged string          // the first name of what was made and has changed
	lost    bool            // it is not known what was made
}

func (b *bytecodeCheck) look(ctx context.Context) error {
	made := b.made()
	b.others, b.missing, b.damaged, b.lost = nil, map[string]bool{}, "", made == nil
	for name := range made {
		b.missing[name] = true
	}
	var shipped map[string]string
	if u, err := readUnpacked(b.dir); err == nil {
		shipped = u.Files
	}
	site := filepath.Join(b.dir, "site")
	return filepath.WalkDir(site, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has scripts or data only, or was replaced at this moment
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(site, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		switch {
		case e.Name() == pycache && !e.IsDir():
			b.others = append(b.others, p) // it keeps bytecode from having its place
		case !isBytecode(name):
		case e.IsDir():
			b.others = append(b.others, p)
			return fs.SkipDir
		case b.known && looks(p, made[name]) || holds(p, made[name], b.buf):
			delete(b.missing, name)
		case !holds(p, shipped["site/"+name], b.buf):
			b.others = append(b.others, p)
			if b.damaged == "" && made[name] != "" && !pythons(p) {
				b.damaged = name
			}
		}
		return nil
	})
}

func (b *bytecodeCheck) made() map[string]string {
	var made map[string]string
	text, err := readSmall(filepath.Join(b.dir, "bytecode-files.json"))
	if err != nil || json.Unmarshal(text, &made) != nil {
		return nil
	}
	return made
}

// removeBytecode removes what is not as it was made, and has a Fill make all of the wheel's if any is missing. None comes
// meanwhile, so that it is looked at once more.
func (s *Store) removeBytecode(ctx context.Context, b *bytecodeCheck) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := b.look(ctx); err != nil {
		return err
	}
	for _, p := range b.others {
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	if len(b.missing) == 0 && !b.lost {
		return nil
	}
	return os.RemoveAll(filepath.Join(b.dir, "bytecode.json"))
}

// pythons reports whether a file is bytecode that an interpreter has written by itself, which says when its source was changed
// (PEP 552): it may have been about to while the wheel's was made.
func pythons(file string) bool {
	f, _, err := openRegular(file)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 8)
	_, err = io.ReadFull(f, head)
	return err == nil && [4]byte(head[4:]) == [4]byte{}
}
