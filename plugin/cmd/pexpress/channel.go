package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/codeserver/channel"
	"github.com/pexpress/pexpress/codeserver/provenance"
	"github.com/pexpress/pexpress/plugin/project"
)

func (a *app) channelCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "channel",
		Short: "Publish versions for the codeservers that follow a channel",
		Long: `A channel is a named, signed pointer in the cache: it says which version each of its locations is to serve. Codeservers
that were started with --follow NAME deploy what it says, and one that was down catches up.`,
	}
	c.AddCommand(a.channelPublishCommand(), a.channelShowCommand())
	return c
}

func (a *app) channelPublishCommand() *cobra.Command {
	var keyFile string
	var only bool
	c := &cobra.Command{
		Use:   "publish NAME [LOCATION...]",
		Short: "Build, and have the channel's followers serve it",
		Long: `Build each location (all, if none is named) and move the channel to it. Other locations of the channel stay as they
are, unless --only says that it is to have these alone.`,
		Args: takes(1, -1, "give the NAME of a channel"),
		RunE: func(c *cobra.Command, args []string) error {
			keyFile = first(keyFile, os.Getenv("PEXPRESS_SIGN_KEY"))
			if keyFile == "" {
				return usageError{errors.New("a channel is signed: name the private key with --sign-key; 'pexpress key generate' makes one")}
			}
			if err := channel.CheckName(args[0]); err != nil {
				return usageError{err}
			}
			key, err := provenance.ReadPrivate(keyFile)
			if err != nil {
				return inputError{err}
			}
			return a.with(c.Context(), func(s *session) error {
				return s.publish(c.Context(), args[0], args[1:], key, only)
			})
		},
	}
	c.Flags().StringVar(&keyFile, "sign-key", "", "file of the ed25519 private key to sign with [$PEXPRESS_SIGN_KEY]")
	c.Flags().BoolVar(&only, "only", false, "the channel has these locations alone, whatever is published in it now")
	a.targetFlags(c)
	return c
}

// publish builds locations and moves a channel to them.
func (s *session) publish(ctx context.Context, name string, names []string, key ed25519.PrivateKey, only bool) error {
	locs, err := s.locations(names)
	if err != nil {
		return err
	}
	p, err := s.published(ctx, name, key.Public().(ed25519.PublicKey), only)
	if err != nil {
		return err
	}
	s.several = len(locs) > 1
	for _, loc := range locs {
		if p.Locations[loc.Name], err = s.release(ctx, loc, key); err != nil {
			return fmt.Errorf("location %s: %w", loc.Name, err)
		}
	}
	start := time.Now()
	// By the clock, so that it also rises when the cache has lost the pointer before.
	p.Sequence, p.IssuedAt = max(p.Sequence+1, start.UnixMilli()), start
	envelope, err := p.Sign(ctx, key)
	if err != nil {
		return err
	}
	if err := channel.Publish(ctx, s.cas, s.results, p, envelope); err != nil {
		return err
	}
	s.app.ui.event("published", map[string]any{
		"channel": name, "sequence": p.Sequence, "locations": versionNames(p), "milliseconds": milliseconds(time.Since(start)),
	}, "%-14s %9s  channel %s, sequence %d: %s", "published", took(time.Since(start)), name, p.Sequence, releasesText(p))
	return nil
}

// published returns what the channel has now, to which locations are added.
func (s *session) published(ctx context.Context, name string, key ed25519.PublicKey, only bool) (*channel.Pointer, error) {
	none := &channel.Pointer{Channel: name, Locations: map[string]channel.Release{}}
	envelope, err := channel.Fetch(ctx, s.cas, s.results, name)
	if errors.Is(err, channel.ErrUnpublished) {
		return none, nil
	}
	var p *channel.Pointer
	if err == nil {
		p, _, err = channel.Verify(ctx, envelope, name, []ed25519.PublicKey{key})
	}
	switch {
	case errors.Is(err, channel.ErrRefused) && only:
		return none, nil
	case errors.Is(err, channel.ErrRefused):
		return nil, inputError{fmt.Errorf("what is published now cannot be added to: %w; replace it with --only", err)}
	case err != nil:
		return nil, err
	case only:
		p.Locations = none.Locations
	}
	return p, nil
}

// release builds a location as a channel has it. It carries a signature of its own, for codeservers that ask for one.
func (s *session) release(ctx context.Context, loc *project.Location, key ed25519.PrivateKey) (channel.Release, error) {
	if err := s.checkEntry(loc); err != nil {
		return channel.Release{}, err
	}
	b, err := s.buildLocation(ctx, loc)
	if err != nil {
		return channel.Release{}, err
	}
	r := channel.Release{Spec: b.spec()}
	r.Provenance, err = provenance.Sign(ctx, key, provenance.Deploy{
		Location: loc.Name, Spec: r.Spec, Actions: map[string]digest.Digest{"deps.pex": b.deps.Action, "source.pex": b.source.Action},
	})
	return r, err
}

func (a *app) channelShowCommand() *cobra.Command {
	var keys []string
	c := &cobra.Command{
		Use:   "show NAME",
		Short: "Show what a channel's pointer in the cache says",
		Args:  takes(1, 1, "give the NAME of a channel"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := channel.CheckName(args[0]); err != nil {
				return usageError{err}
			}
			return a.showChannel(c.Context(), args[0], keys)
		},
	}
	c.Flags().StringSliceVar(&keys, "channel-key", nil, "file of public keys: the pointer must be signed by one of them (repeatable)")
	return c
}

func (a *app) showChannel(ctx context.Context, name string, keyFiles []string) (err error) {
	cas, results, closer, err := a.openCache(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	envelope, err := channel.Fetch(ctx, cas, results, name)
	if errors.Is(err, channel.ErrUnpublished) || errors.Is(err, channel.ErrRefused) {
		return inputError{err}
	}
	if err != nil {
		return err
	}
	var p *channel.Pointer
	signature := "signature not checked: name the publisher's public key with --channel-key"
	if len(keyFiles) == 0 {
		p, err = channel.Read(envelope)
	} else {
		var keys []ed25519.PublicKey
		if keys, err = readKeys(keyFiles); err != nil {
			return inputError{err}
		}
		p, _, err = channel.Verify(ctx, envelope, name, keys)
		signature = "signed by a key of " + strings.Join(keyFiles, ", ")
	}
	if err != nil {
		return inputError{err}
	}
	a.ui.event("channel", map[string]any{
		"channel": p.Channel, "sequence": p.Sequence, "issued_at": p.IssuedAt, "locations": versionNames(p), "verified": len(keyFiles) > 0,
	}, "%s, sequence %d, of %s; %s\n  %s", p.Channel, p.Sequence, p.IssuedAt.Local().Format(time.DateTime), signature,
		strings.ReplaceAll(releasesText(p), ", ", "\n  "))
	return nil
}

func readKeys(files []string) ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	for _, f := range files {
		keys, err := provenance.ReadPublic(filepath.Clean(f))
		if err != nil {
			return nil, err
		}
		all = append(all, keys...)
	}
	return all, nil
}

// versionNames are the names that the versions of a pointer have on codeservers.
func versionNames(p *channel.Pointer) map[string]string {
	names := map[string]string{}
	for l, r := range p.Locations {
		if _, d, err := digest.Marshal(r.Spec); err == nil {
			names[l] = d.Hash()
		}
	}
	return names
}

func releasesText(p *channel.Pointer) string {
	names := versionNames(p)
	var all []string
	for _, l := range slices.Sorted(maps.Keys(names)) {
		all = append(all, l+"@"+short(names[l]))
	}
	return strings.Join(all, ", ")
}
