package venv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/pexpress/pexpress/cache/digest"
)

// Names of what the store made; anything else in its directories is not touched.
var (
	envName      = regexp.MustCompile(`^([0-9a-f]{32})-3\.[0-9]+$`)
	unpackedName = regexp.MustCompile(`^[0-9a-f]{64}-3\.[0-9]+$`)
)

// Keep deletes every environment whose key is not among keys, for whatever version of Python, then every unpacked
// wheel that no environment uses. What a running Env needs stays. If the marker of an environment to be kept cannot be
// read no wheel is deleted, and the error says which it is; Env makes that environment again.
func (s *Store) Keep(ctx context.Context, keys []digest.Digest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	trash, err := os.MkdirTemp(s.path("tmp"), "trash-")
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, k := range keys {
		if !k.IsZero() {
			kept[k.Hash()[:32]] = true
		}
	}
	err = s.sweep(trash, kept)
	// The slow part is done when nobody can see it anymore.
	return errors.Join(err, os.RemoveAll(trash))
}

// sweep moves what is not needed to trash, while no Env begins or ends.
func (s *Store) sweep(trash string, kept map[string]bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[string]bool{}
	envs, err := os.ReadDir(s.path("envs"))
	if err != nil {
		return err
	}
	var damaged error
	for _, e := range envs {
		name := filepath.Join("envs", e.Name())
		m := envName.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if !kept[m[1]] && s.busy[name] == 0 {
			if err := os.Rename(s.path(name), filepath.Join(trash, e.Name())); err != nil {
				return fmt.Errorf("delete environment: %w", err)
			}
			delete(s.remade, name)
			continue
		}
		mk, err := readMarker(s.path(name))
		if err != nil && s.busy[name] > 0 {
			continue // it is being made again, by one that holds its wheels
		}
		if err != nil {
			damaged = errors.Join(damaged, fmt.Errorf("environment %s is damaged, unpacked wheels are all kept: %w", e.Name(), err))
			continue
		}
		for _, w := range mk.Wheels {
			used[wheelDir(w, e.Name()[len(m[1])+1:])] = true
		}
	}
	if damaged != nil {
		return damaged
	}
	return s.sweepWheels(trash, used)
}

func (s *Store) sweepWheels(trash string, used map[string]bool) error {
	wheels, err := os.ReadDir(s.path("wheels"))
	if err != nil {
		return err
	}
	for _, e := range wheels {
		name := filepath.Join("wheels", e.Name())
		if !unpackedName.MatchString(e.Name()) || used[name] || s.busy[name] > 0 {
			continue
		}
		if err := os.Rename(s.path(name), filepath.Join(trash, e.Name())); err != nil {
			return fmt.Errorf("delete unpacked wheel: %w", err)
		}
		for _, of := range []string{name, bytecodeOf(name)} {
			delete(s.whole, of)
			delete(s.remade, of)
		}
	}
	// Those that were unpacked for an environment that could not be made.
	for name, tmp := range s.staged {
		if s.busy[name] > 0 {
			continue
		}
		if err := os.Rename(tmp, filepath.Join(trash, filepath.Base(tmp))); err != nil {
			return fmt.Errorf("delete unpacked wheel: %w", err)
		}
		delete(s.staged, name)
		delete(s.damaged, name)
	}
	return nil
}
