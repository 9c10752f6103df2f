package codeserver

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/codeserver/channel"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// Channels are those that a codeserver follows.
type Channels struct {
	Follow []Follow
	// Keys are those of their publishers.
	Keys []ed25519.PublicKey
	// Every is how often each is looked at; 10 s if 0.
	Every time.Duration
	// Open opens the cache that they are in.
	Open func(ctx context.Context) (cache.CAS, cache.ActionCache, io.Closer, error)
}

// Follow is a channel, and the locations of it that are followed: all if there are none.
type Follow struct {
	Channel   string
	Locations []string
}

// followed is how a location stands to its channel.
type followed struct {
	channel string
	err     string
}

// ParseFollow reads NAME, or NAME=LOCATION,….
func ParseFollow(text string) (Follow, error) {
	name, locations, some := strings.Cut(text, "=")
	f := Follow{Channel: name}
	if err := channel.CheckName(name); err != nil {
		return f, err
	}
	if some {
		f.Locations = strings.Split(locations, ",")
	}
	for _, l := range f.Locations {
		if !locationName.MatchString(l) {
			return f, fmt.Errorf("%q follows %.80q, which is no name for a location", text, l)
		}
	}
	return f, nil
}

// check refuses what cannot be followed: two channels that would take turns with one location.
func (c *Channels) check() error {
	by, seen := map[string]string{}, map[string]bool{}
	for _, f := range c.Follow {
		switch {
		case len(f.Locations) == 0 && len(c.Follow) > 1:
			return fmt.Errorf("channel %s is followed with all of its locations, and another channel beside it: name the locations of each", f.Channel)
		case seen[f.Channel]:
			return fmt.Errorf("channel %s is followed twice: name all of its locations in one place", f.Channel)
		}
		seen[f.Channel] = true
		for _, l := range f.Locations {
			if by[l] != "" {
				return fmt.Errorf("location %s follows channel %s and channel %s: it can follow one", l, by[l], f.Channel)
			}
			by[l] = f.Channel
		}
	}
	return nil
}

// followChannels begins to follow.
func (s *Server) followChannels() error {
	c := s.opts.Channels
	if err := c.check(); err != nil {
		return err
	}
	if c.Every == 0 {
		c.Every = 10 * time.Second
	}
	for _, what := range c.Follow {
		f, err := channel.New(channel.Options{
			Name: what.Channel, Locations: what.Locations, Keys: c.Keys, Every: c.Every, Open: c.Open, Log: s.opts.Log,
			Dir:    filepath.Join(s.opts.State, "channels"),
			Deploy: s.deployRelease,
			Report: func(location string, err error) { s.reportFollowed(location, what.Channel, err) },
		})
		if err != nil {
			return err
		}
		for _, l := range what.Locations {
			s.reportFollowed(l, what.Channel, nil)
		}
		s.tasks.Go(func() { f.Run(s.ctx) })
	}
	return nil
}

// deployRelease deploys what a channel says, as if it had been asked for.
func (s *Server) deployRelease(ctx context.Context, location string, r channel.Release) error {
	ctx, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	req := &codeserverpb.DeployRequest{Location: location, Spec: r.Spec, Provenance: r.Provenance}
	done, err := s.deployAll(ctx, []*codeserverpb.DeployRequest{req}, func(*codeserverpb.Stage) {})
	if err != nil {
		err = classify(err)
		for _, passes := range []error{errUnavailable, errNotFound, errAborted} {
			if errors.Is(err, passes) {
				return fmt.Errorf("%w: %w", channel.ErrAgain, err)
			}
		}
		return err
	}
	if l := done[0].GetLocation(); !done[0].GetUnchanged() {
		s.opts.Log.Info("deployed from a channel", "location", l.GetName(), "version", l.GetCurrent(), "address", l.GetAddress())
	}
	return nil
}

// reportFollowed keeps how a location stands to its channel.
func (s *Server) reportFollowed(location, name string, err error) {
	now := followed{channel: name}
	if err != nil {
		now.err = err.Error()
	}
	s.mu.Lock()
	same := s.followed[location] == now
	s.followed[location] = now
	s.mu.Unlock()
	if !same {
		s.changed()
	}
}

// withChannels adds to what is shown of locations how they stand to their channels. A location that has no version, since
// its channel cannot be followed, is shown, too. Only the one that is named is asked for, if one is.
func (s *Server) withChannels(name string, all []*codeserverpb.Location) []*codeserverpb.Location {
	s.mu.Lock()
	defer s.mu.Unlock()
	there := map[string]bool{}
	for _, l := range all {
		there[l.GetName()] = true
		l.Channel, l.ChannelError = s.followed[l.GetName()].channel, s.followed[l.GetName()].err
	}
	for location, f := range s.followed {
		if !there[location] && f.err != "" && (name == "" || name == location) {
			all = append(all, &codeserverpb.Location{Name: location, Channel: f.channel, ChannelError: f.err})
		}
	}
	slices.SortFunc(all, func(a, b *codeserverpb.Location) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}
