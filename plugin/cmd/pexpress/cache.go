package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/cache/open"
)

func (a *app) cacheCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cache",
		Short: "Look after the cache on this machine's disk",
	}
	c.AddCommand(a.cacheStatsCommand(), a.cacheVerifyCommand(), a.cacheGCCommand())
	return c
}

// withDisk opens the cache, which must be one on disk, for fn.
func (a *app) withDisk(fn func(*disk.Store) error) error {
	if err := a.findCache(); err != nil {
		return err
	}
	dir, ok := open.Dir(a.cache)
	if !ok {
		return usageError{fmt.Errorf("%s is not a cache on this machine's disk", a.cache)}
	}
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		return unavailableError{err}
	}
	return errors.Join(fn(s), s.Close())
}

func (a *app) cacheStatsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Say how much the cache holds",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withDisk(func(s *disk.Store) error {
				st, err := s.Stats(c.Context())
				if err != nil {
					return err
				}
				a.ui.event("stats", st, "%s, %s; %s; %s quarantined", count(st.Blobs, "blob"), size(st.Bytes),
					count(st.Actions, "action result"), count(st.Quarantined, "file"))
				return nil
			})
		},
	}
}

func (a *app) cacheVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read every blob, and set aside those that are not what their name says",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withDisk(func(s *disk.Store) error {
				r, err := s.Verify(c.Context())
				if err != nil {
					return err
				}
				a.ui.event("verified", r, "%s read, %s; %s corrupt and set aside", count(r.Blobs, "blob"), size(r.Bytes),
					count(len(r.Corrupt), "blob"))
				if len(r.Corrupt) > 0 {
					return errors.New("the cache held corrupt blobs; they are set aside, and the next build fetches them again")
				}
				return nil
			})
		},
	}
}

func (a *app) cacheGCCommand() *cobra.Command {
	var maxSize string
	c := &cobra.Command{
		Use:   "gc",
		Short: "Delete what was used longest ago, until the cache is small enough",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			limit, err := parseSize(maxSize)
			if err != nil {
				return usageError{err}
			}
			return a.withDisk(func(s *disk.Store) error {
				r, err := s.GC(c.Context(), limit)
				if err != nil {
					return err
				}
				a.ui.event("collected", r, "%s deleted, %s; %s left", count(r.Deleted, "blob"), size(r.DeletedBytes), size(r.LeftBytes))
				return nil
			})
		},
	}
	c.Flags().StringVar(&maxSize, "max-size", "10GiB", "size to shrink to, such as 500MiB or 20GiB; 0 deletes all that is not pinned")
	return c
}

var sizeForm = lazy.Regexp(`^(?:0|([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(B|KiB|MiB|GiB|TiB))$`)

// parseSize reads a number with its unit: B, KiB, MiB, GiB or TiB. A number alone, which may be meant in another, is only 0.
func parseSize(s string) (int64, error) {
	m := sizeForm().FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size such as 500MiB or 20GiB", s)
	}
	if m[1] == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, err
	}
	scale := map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[m[2]]
	if n*scale >= 1<<62 {
		return 0, fmt.Errorf("%q is more than any disk holds", s)
	}
	return int64(n * scale), nil
}
