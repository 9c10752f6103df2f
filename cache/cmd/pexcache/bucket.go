package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/s3"
)

// bucketFlags adds the flags that say which bucket a command works on.
func bucketFlags(c *cobra.Command, s *storage) {
	*s = defaults().storage
	f := c.Flags()
	s.flags(f)
	for _, name := range []string{"disk", "disk-size", "retention"} {
		if err := f.MarkHidden(name); err != nil {
			panic(err) // there is no such flag
		}
	}
	if err := c.MarkFlagRequired("s3"); err != nil {
		panic(err)
	}
}

// withBucket opens the bucket for fn. Nodes may go on serving it meanwhile.
func withBucket(ctx context.Context, s *storage, readOnly bool, fn func(*s3.Store) error) error {
	o, err := s.s3Options()
	if err != nil {
		return usageError{err}
	}
	o.ReadOnly, o.Manual = readOnly, true
	o.Retention = 0 // the longest that a node has promised is recorded in the bucket, and holds
	b, err := s3.Open(ctx, o)
	if err != nil {
		return unavailableError{err}
	}
	return errors.Join(fn(b), b.Close())
}

// bucketError sorts an error of a maintenance command.
func bucketError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, s3.ErrIndexLost):
		return errors.Join(errUnsound, err)
	case errors.Is(err, s3.ErrNoConditionalPut), errors.Is(err, s3.ErrStale):
		return unavailableError{err}
	}
	return err
}
