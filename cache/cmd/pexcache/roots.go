package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/cache/s3"
)

const pinHelp = `Keep what is deployed: gc condemns nothing that a root reaches, however long nobody asks for it. A root of the same name is
replaced. What is already condemned, or missing, is an error that names it: build it again, then pin.

  pexcache pin --s3 s3://BUCKET/PREFIX production --tree DIGEST --tree DIGEST

A digest is written HASH/SIZE, as 'pexpress build --output json' and remotetool print it.`

// pinned is what a root is to reach.
type pinned struct {
	trees, actions, blobs []string
}

func pinCommand(u *ui) *cobra.Command {
	var s where
	var p pinned
	var instance string
	c := &cobra.Command{
		Use: "pin NAME", Short: "Keep a deployment's trees from gc", Long: pinHelp, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return withBucket(c.Context(), &s, false, func(b *s3.Store) error {
				ds, err := p.reach(c.Context(), b.Namespace(instance))
				if err != nil {
					return absent(err)
				}
				if err := b.AddRoot(c.Context(), instance, args[0], ds); err != nil {
					return absent(bucketError(err))
				}
				u.event("pinned", map[string]any{"name": args[0], "instance": instance, "digests": len(ds)}, "%s pinned: %s", args[0], count(len(ds), "blob"))
				return nil
			})
		},
	}
	s.flags(c, false)
	f := c.Flags()
	f.StringVar(&instance, "instance", "", "the instance that holds it")
	f.StringArrayVar(&p.trees, "tree", nil, "root Directory of a tree, with all that is in it")
	f.StringArrayVar(&p.actions, "action", nil, "Action, with all that its result reaches")
	f.StringArrayVar(&p.blobs, "blob", nil, "one blob")
	c.MarkFlagsOneRequired("tree", "action", "blob")
	return c
}

// absent says that what is to be pinned is not there, by the exit status.
func absent(err error) error {
	if errors.Is(err, cache.ErrNotFound) {
		return notFoundError{err}
	}
	return err
}

// both is a CAS and an ActionCache.
type both interface {
	cache.CAS
	cache.ActionCache
}

// reach returns every digest that is to be kept.
func (p *pinned) reach(ctx context.Context, c both) ([]digest.Digest, error) {
	all := map[digest.Digest]bool{}
	for _, arg := range p.blobs {
		d, err := digest.Parse(arg)
		if err != nil {
			return nil, usageError{err}
		}
		all[d] = true
	}
	for _, arg := range p.trees {
		d, err := digest.Parse(arg)
		if err != nil {
			return nil, usageError{err}
		}
		t, err := merkle.Load(ctx, c, d)
		if err != nil {
			return nil, fmt.Errorf("tree %s: %w", d, err)
		}
		for d := range t.Blobs() {
			all[d] = true
		}
		for _, d := range t.Files() {
			all[d] = true
		}
	}
	for _, arg := range p.actions {
		d, err := digest.Parse(arg)
		if err != nil {
			return nil, usageError{err}
		}
		ar, err := c.GetActionResult(ctx, d)
		if err != nil {
			return nil, err
		}
		ds, err := complete.Closure(ctx, c, d.Function(), ar)
		if err != nil {
			return nil, fmt.Errorf("result of %s: %w", d, err)
		}
		for _, d := range ds {
			all[d] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), digest.Digest.Compare), nil
}

func unpinCommand(u *ui) *cobra.Command {
	var s where
	var instance string
	c := &cobra.Command{
		Use: "unpin NAME", Short: "Let gc have what pin kept", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return withBucket(c.Context(), &s, false, func(b *s3.Store) error {
				if err := checkPinned(c.Context(), b, instance, args[0]); err != nil {
					return err
				}
				if err := b.RemoveRoot(c.Context(), instance, args[0]); err != nil {
					return bucketError(err)
				}
				u.event("unpinned", map[string]any{"name": args[0], "instance": instance}, "%s is not pinned any more", args[0])
				return nil
			})
		},
	}
	s.flags(c, false)
	c.Flags().StringVar(&instance, "instance", "", "the instance that holds it")
	return c
}

// checkPinned refuses a name that is not pinned in the instance, and says where it is.
func checkPinned(ctx context.Context, b *s3.Store, instance, name string) error {
	roots, err := b.Roots(ctx)
	if err != nil {
		return bucketError(err)
	}
	var elsewhere []string
	for _, r := range roots {
		if r.Name == name && r.Namespace == instance {
			return nil
		}
		if r.Name == name {
			elsewhere = append(elsewhere, strconv.Quote(r.Namespace))
		}
	}
	if len(elsewhere) > 0 {
		return notFoundErrorf("%s is not pinned in instance %q but in %s: say --instance", name, instance, strings.Join(elsewhere, ", "))
	}
	return notFoundErrorf("%s is not pinned in instance %q: pexcache roots lists what is", name, instance)
}

func rootsCommand(u *ui) *cobra.Command {
	var s where
	c := &cobra.Command{
		Use: "roots", Short: "List what is pinned", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return withBucket(c.Context(), &s, true, func(b *s3.Store) error {
				roots, err := b.Roots(c.Context())
				if err != nil {
					return bucketError(err)
				}
				for _, r := range roots {
					u.event("root", map[string]any{"name": r.Name, "instance": r.Namespace, "digests": r.Digests, "added": r.Added},
						"%s  %s in instance %q, pinned %s", r.Name, count(r.Digests, "blob"), r.Namespace, r.Added.UTC().Format(time.RFC3339))
				}
				return nil
			})
		},
	}
	s.flags(c, false)
	return c
}
