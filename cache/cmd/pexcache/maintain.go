package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/pack"
	"github.com/pexpress/pexpress/cache/s3"
)

func verifyCommand(u *ui) *cobra.Command {
	var s where
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare the bucket's index with its objects, or read a disk tier that no server has open",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.S3 == "" {
				return verifyDisk(c, u, &s.storage)
			}
			return withBucket(c.Context(), &s, true, func(b *s3.Store) error {
				r, err := b.Verify(c.Context())
				if err != nil {
					return bucketError(err)
				}
				u.event("verified", r, "%s with %s; %s missing, %s of another length; %s that no index names, %s",
					count(r.Packs, "pack"), count(r.Entries, "entry"), count(len(r.Missing), "object"), count(len(r.WrongLen), "object"),
					count(r.Strays, "object"), size(r.StrayLen))
				if n := len(r.Missing) + len(r.WrongLen); n > 0 {
					return fmt.Errorf("%w: %d objects that the index names are gone or cut off: run 'pexcache scrub', which has their blobs uploaded again", errUnsound, n)
				}
				return nil
			})
		},
	}
	s.flags(c, true)
	c.MarkFlagsMutuallyExclusive("s3", "disk")
	return c
}

// openTier opens the disk tier that a server has made.
func (s *storage) openTier() (*pack.Store, error) {
	dir := filepath.Join(s.Disk, "tier")
	if _, err := os.Stat(dir); err != nil {
		return nil, notFoundErrorf("there is no disk tier in %s: name the directory that pexcache serve has for --disk", s.Disk)
	}
	d, err := pack.Open(dir, pack.Options{MaxBytes: int64(s.DiskSize), Retention: time.Duration(s.Retention)})
	if err != nil {
		return nil, unavailableError{err}
	}
	return d, nil
}

func verifyDisk(c *cobra.Command, u *ui, s *storage) (err error) {
	d, err := s.openTier()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	r, err := d.Verify(c.Context())
	if err != nil {
		return err
	}
	u.event("verified", r, "%s read, %s; %s damaged and set aside", count(r.Checked, "entry"), size(r.Bytes), count(len(r.Damaged), "entry"))
	if len(r.Damaged) > 0 {
		return fmt.Errorf("%w: %d entries were set aside; they are read from the bucket or uploaded again", errUnsound, len(r.Damaged))
	}
	return nil
}

func scrubCommand(u *ui) *cobra.Command {
	var s where
	c := &cobra.Command{
		Use:   "scrub",
		Short: "Read everything in the bucket, and set aside what is not what its name says",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withBucket(c.Context(), &s, false, func(b *s3.Store) error {
				r, err := b.Scrub(c.Context())
				if err != nil {
					return bucketError(err)
				}
				u.event("scrubbed", r, "%s read with %s, %s; %s in %s set aside, %s beside them saved", count(r.Packs, "pack"),
					count(r.Records, "record"), size(r.Bytes), count(r.BadRecords, "bad record"), count(r.BadPacks, "pack"), count(r.Rescued, "good one"))
				if r.BadRecords > 0 || r.BadPacks > 0 {
					return fmt.Errorf("%w: it reads as missing now, and clients upload it again", errUnsound)
				}
				return nil
			})
		},
	}
	s.flags(c, false)
	return c
}

func rebuildCommand(u *ui) *cobra.Command {
	var s where
	var yes bool
	c := &cobra.Command{
		Use:   "rebuild",
		Short: "Make the bucket's index anew from its objects; no node may run meanwhile, and what was purged comes back",
		Long: `Make the bucket's index anew from its objects, after the index was lost. It reads the head of every object. What a node writes
meanwhile may be lost from the index, so stop all nodes first, and say --yes.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !yes {
				return usageError{fmt.Errorf("no node may run on %s meanwhile, and what was purged comes back: stop all of them, and say --yes", s.S3)}
			}
			o, err := s.s3Options()
			if err != nil {
				return usageError{err}
			}
			r, err := s3.Rebuild(c.Context(), o)
			if err != nil {
				return bucketError(unavailableError{err})
			}
			u.event("rebuilt", r, "%s with %s; %s passed over", count(r.Packs, "pack"), count(r.Records, "record"), count(len(r.Bad), "damaged object"))
			return nil
		},
	}
	s.flags(c, false)
	c.Flags().BoolVar(&yes, "yes", false, "all nodes are stopped: do it")
	return c
}

func gcCommand(u *ui) *cobra.Command {
	var s where
	var maxSize bytesValue
	var maxAge durationValue
	var dryRun bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Delete from the bucket what was used longest ago",
		Long: `Delete from the bucket what was used longest ago, until the limits hold. Run it now and then, from one place: a timer or a
CronJob. It condemns first, and deletes what an earlier run condemned once every promise that was made of it has
expired; so the space is free after the next run that is later than the retention. Without limits it only does that.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withBucket(c.Context(), &s, false, func(b *s3.Store) error {
				r, err := b.GC(c.Context(), s3.GCOptions{MaxBytes: int64(maxSize), MaxAge: time.Duration(maxAge), DryRun: dryRun})
				if err != nil {
					return bucketError(err)
				}
				verb := map[bool]string{false: "condemned", true: "would be condemned"}[dryRun]
				u.event("collected", r, "%s live before; %s %s, %s; %s deleted, %s; %s waiting until they may be",
					size(r.LiveBytes), count(r.CondemnedRecords, "record"), verb, size(r.CondemnedBytes),
					count(r.DeletedPacks, "pack"), size(r.DeletedBytes), count(r.Waiting, "pack"))
				return nil
			})
		},
	}
	s.flags(c, false)
	c.Flags().Var(&maxSize, "max-size", "size to come down to, such as 500GiB (default: no limit)")
	c.Flags().Var(&maxAge, "max-age", "time since the last use after which an entry goes, such as 30d (default: no limit)")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be condemned, and write nothing")
	return c
}
