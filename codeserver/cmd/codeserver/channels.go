package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/open"
	"github.com/pexpress/pexpress/codeserver"
	"github.com/pexpress/pexpress/codeserver/provenance"
)

// channelFlags say which channels are followed.
type channelFlags struct {
	follow, keys []string
	every        time.Duration
}

func (f *channelFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.follow, "follow", nil, "`CHANNEL[=LOCATION,…]` whose locations are served as its pointer in the cache says; all of them if none is named (repeatable)")
	c.Flags().StringSliceVar(&f.keys, "channel-key", nil, "file of public keys of those who publish the channels (repeatable)")
	c.Flags().DurationVar(&f.every, "follow-every", 10*time.Second, "how often a channel is looked at")
}

// opener returns what opens the cache with its ActionCache.
func opener(address string) func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
	return func(ctx context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
		return open.Open(ctx, address)
	}
}

// read returns the channels as the codeserver takes them.
func (f *channelFlags) read(address string) (codeserver.Channels, error) {
	c := codeserver.Channels{Every: f.every, Open: opener(address)}
	if f.every < time.Millisecond {
		return c, usagef("--follow-every %s: say a millisecond or more", f.every)
	}
	for _, text := range f.follow {
		what, err := codeserver.ParseFollow(text)
		if err != nil {
			return c, usagef("--follow: %w", err)
		}
		c.Follow = append(c.Follow, what)
	}
	if len(c.Follow) > 0 && len(f.keys) == 0 {
		return c, usagef("--follow needs --channel-key: whoever can write to the cache could say what runs here otherwise; " +
			"give the public key of those who publish")
	}
	for _, path := range f.keys {
		keys, err := provenance.ReadPublic(path)
		if err != nil {
			return c, fmt.Errorf("--channel-key: %w", err)
		}
		c.Keys = append(c.Keys, keys...)
	}
	return c, nil
}
