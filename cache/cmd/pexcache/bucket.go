package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/s3"
)

// where says what a command that looks after a cache works on, by flags or by the file that serve is given.
type where struct {
	storage
	path string
	file config // what path says
}

// flags adds the flags of a command that works on a bucket or, where it can, on a disk tier.
func (w *where) flags(c *cobra.Command, disk bool) {
	w.storage = defaults().storage
	f := c.Flags()
	w.storage.flags(f)
	f.StringVar(&w.path, "config", "", "the TOML file that 'pexcache serve' is given, for where the cache is; flags count before it")
	hidden, needed := []string{"disk-size", "retention"}, []string{"s3", "disk", "config"}
	if !disk {
		hidden, needed = append(hidden, "disk"), []string{"s3", "config"}
	}
	for _, name := range hidden {
		if err := f.MarkHidden(name); err != nil {
			panic(err) // there is no such flag
		}
	}
	if c.Name() != "stats" { // which asks a server if nothing is named
		c.MarkFlagsOneRequired(needed...)
	}
	c.PreRunE = func(c *cobra.Command, _ []string) error { return w.load(c, disk) }
}

// load reads the file. A cache that has a bucket is in the bucket: its disk is a copy, and looked at if --disk asks for it.
func (w *where) load(c *cobra.Command, disk bool) error {
	if w.path != "" {
		w.file = defaults()
		if err := w.file.decode(w.path); err != nil {
			return err
		}
		given := w.storage
		w.storage = w.file.storage
		w.keep(c, &given)
	}
	if disk && c.Flags().Changed("disk") {
		w.S3 = ""
	}
	if w.S3 != "" {
		w.Disk = ""
		_, _, err := bucketOf(w.S3)
		if err != nil {
			return usageError{err}
		}
		return nil
	}
	if !disk && w.path != "" {
		return configErrorf("configuration %s: it names no s3 bucket, which %s works on", w.path, c.Name())
	}
	if err := (&config{storage: w.storage}).checkPaths(); err != nil {
		return configError{err}
	}
	return nil
}

// keep puts the flags that were given before what the file says.
func (w *where) keep(c *cobra.Command, given *storage) {
	for name, set := range map[string]func(){
		"disk": func() { w.Disk = given.Disk }, "disk-size": func() { w.DiskSize = given.DiskSize },
		"retention": func() { w.Retention = given.Retention }, "s3": func() { w.S3 = given.S3 },
		"s3-endpoint": func() { w.S3Endpoint = given.S3Endpoint }, "s3-region": func() { w.S3Region = given.S3Region },
		"s3-path-style": func() { w.S3PathStyle = given.S3PathStyle }, "s3-sse": func() { w.S3SSE = given.S3SSE },
		"s3-sse-key": func() { w.S3SSEKey = given.S3SSEKey },
	} {
		if c.Flags().Changed(name) {
			set()
		}
	}
}

// withBucket opens the bucket for fn. Nodes may go on serving it meanwhile.
func withBucket(ctx context.Context, w *where, readOnly bool, fn func(*s3.Store) error) error {
	o, err := w.s3Options()
	if err != nil {
		return usageError{err}
	}
	o.ReadOnly, o.Manual = readOnly, true
	o.Retention = 0 // the longest that a node has promised is recorded in the bucket, and holds
	if err := mustHold(ctx, w.S3, o); err != nil {
		return err
	}
	b, err := s3.Open(ctx, o)
	if err != nil {
		return bucketError(unavailableError{err})
	}
	return errors.Join(fn(b), b.Close())
}

// mustHold refuses a bucket, or a prefix in it, in which no node has ever kept anything: to open it would begin a cache
// there, and to find nothing wrong with that would help nobody who mistyped it.
func mustHold(ctx context.Context, address string, o s3.Options) error {
	b, err := s3.NewClient(ctx, o)
	if err != nil {
		return unavailableError{err}
	}
	for _, key := range []string{"manifest", "pack/"} { // packs alone are a cache whose index was lost
		page, err := b.List(ctx, key, "")
		if err != nil {
			return bucketError(unavailableError{fmt.Errorf("list %s: %w", address, err)})
		}
		if len(page.Objects) > 0 {
			return nil
		}
	}
	return notFoundErrorf("no cache was ever kept in %s: check the bucket's name and the prefix; 'pexcache serve' begins a new one", address)
}

// bucketError sorts an error of a maintenance command.
func bucketError(err error) error {
	var answer *smithyhttp.ResponseError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, s3.ErrIndexLost):
		return errors.Join(errUnsound, err)
	case errors.Is(err, s3.ErrNoConditionalPut):
		return configErrorf("%w: without them nothing can be deleted or pinned; use a bucket of a service that has them", err)
	case errors.Is(err, s3.ErrStale):
		return unavailableError{err}
	case errors.As(err, &answer):
		switch answer.HTTPStatusCode() {
		case http.StatusNotFound:
			return notFoundErrorf("%w: check the bucket's name, --s3-endpoint and --s3-path-style", err)
		case http.StatusForbidden, http.StatusUnauthorized:
			return refusedError{fmt.Errorf("%w: check the credentials, and what they may do with the bucket", err)}
		}
	}
	return err
}
