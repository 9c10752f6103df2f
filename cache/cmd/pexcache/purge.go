package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/pack"
	"github.com/pexpress/pexpress/cache/s3"
)

const purgeHelp = `Remove ActionResults by who wrote them and when: after a token leaked, or a builder made wrong results. Builds make them
anew. Blobs stay: a digest names the same bytes whoever stored them, and gc deletes those that nothing uses.

  pexcache purge --config FILE --principal token:ci --since 2026-01-02T15:00:00Z
  pexcache purge --s3 s3://BUCKET/PREFIX --since 2h --instance main --dry-run

Nodes go on serving meanwhile, and obey within a minute. With --disk in place of --s3 the server must not run.`

// purge is what to remove.
type purge struct {
	principal, since, instance string
	oneInstance, dryRun        bool
}

func purgeCommand(u *ui) *cobra.Command {
	var s where
	var p purge
	c := &cobra.Command{
		Use: "purge", Short: "Remove ActionResults by who wrote them and when", Long: purgeHelp, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			since, err := moment(p.since, time.Now())
			if err != nil {
				return usageError{err}
			}
			if p.principal != "" {
				if err := checkPrincipal(p.principal); err != nil {
					return usageError{fmt.Errorf("--principal: %w", err)}
				}
			}
			p.oneInstance = c.Flags().Changed("instance")
			var n int64
			if s.S3 != "" {
				n, err = p.bucket(c.Context(), &s, since)
			} else {
				n, err = p.disk(c.Context(), &s.storage, since)
			}
			if err != nil {
				return err
			}
			verb := map[bool]string{false: "removed", true: "would be removed"}[p.dryRun]
			u.event("purged", map[string]any{"results": n, "dry_run": p.dryRun}, "%s %s", count(n, "ActionResult"), verb)
			return nil
		},
	}
	s.flags(c, true)
	f := c.Flags()
	f.StringVar(&p.principal, "principal", "", "who wrote them, as 'token:ci' (default: anyone)")
	f.StringVar(&p.since, "since", "", "written at or after: 2026-01-02T15:00:00Z, or so long ago: 2h, 3d (default: ever)")
	f.StringVar(&p.instance, "instance", "", `one instance; "" is the default one (default: all of them)`)
	f.BoolVar(&p.dryRun, "dry-run", false, "count them, and remove nothing")
	c.MarkFlagsMutuallyExclusive("s3", "disk")
	c.MarkFlagsOneRequired("principal", "since")
	return c
}

// moment reads a time, or how long ago it was.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	var d durationValue
	if err := d.Set(s); err != nil {
		return time.Time{}, fmt.Errorf("--since %q is neither a time such as 2026-01-02T15:00:00Z nor a span such as 2h or 3d", s)
	}
	return now.Add(-time.Duration(d)), nil
}

func (p *purge) bucket(ctx context.Context, s *where, since time.Time) (n int64, err error) {
	err = withBucket(ctx, s, p.dryRun, func(b *s3.Store) error {
		if p.oneInstance {
			held, err := b.Usage(ctx)
			if err != nil {
				return bucketError(err)
			}
			if _, ok := held[p.instance]; !ok {
				return noInstance(p.instance, maps.Keys(held))
			}
		}
		r, err := b.Purge(ctx, s3.PurgeFilter{
			Principal: p.principal, Since: since, Namespace: p.instance, AllNamespaces: !p.oneInstance, DryRun: p.dryRun,
		})
		n = r.Entries
		return bucketError(err)
	})
	return n, err
}

// noInstance refuses an instance that holds nothing, and says which do.
func noInstance(name string, held iter.Seq[string]) error {
	var names []string
	for _, n := range slices.Sorted(held) {
		names = append(names, strconv.Quote(n))
	}
	if len(names) == 0 {
		return notFoundErrorf("instance %q holds nothing, and no other does", name)
	}
	return notFoundErrorf("instance %q holds nothing; these hold something: %s", name, strings.Join(names, ", "))
}

func (p *purge) disk(ctx context.Context, s *storage, since time.Time) (n int64, err error) {
	d, err := s.openTier()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	found := map[string][]digest.Digest{} // by namespace
	held := map[string]bool{}
	err = d.Actions(ctx, func(a pack.Action) bool {
		held[a.Namespace] = true
		if (p.principal == "" || a.Writer == p.principal) && !a.Time.Before(since.Truncate(time.Second)) &&
			(!p.oneInstance || a.Namespace == p.instance) {
			found[a.Namespace] = append(found[a.Namespace], a.Digest)
			n++
		}
		return true
	})
	if err == nil && p.oneInstance && !held[p.instance] {
		return 0, noInstance(p.instance, maps.Keys(held))
	}
	if err != nil || p.dryRun {
		return n, err
	}
	for name, actions := range found {
		ns, err := d.Namespace(name)
		if err != nil {
			return n, err
		}
		if err := ns.DropActions(actions); err != nil {
			return n, fmt.Errorf("remove ActionResults of instance %q: %w", name, err)
		}
	}
	return n, nil
}
