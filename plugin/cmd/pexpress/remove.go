package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func (a *app) removeCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "remove LOCATION...",
		Short: "End locations: their addresses are free, their versions forgotten",
		Long: `End locations. Requests under way end as they would on a deploy; new ones find nobody. The versions are forgotten,
so that there is nothing to roll back to, and what only they needed is deleted.`,
		Args: takes(1, -1, "give at least one LOCATION"),

		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			srv, err := a.dial(c.Context(), to)
			if err != nil {
				return err
			}
			defer srv.Close()
			for _, name := range args {
				if err := a.removeLocation(c.Context(), srv, name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	serverFlag(c, &to)
	return c
}

// removeLocation ends a location, after the deploy of it that may be under way.
func (a *app) removeLocation(ctx context.Context, srv *client.Client, name string) error {
	start := time.Now()
	err := inTurn(ctx, turnTime, func() error {
		_, err := srv.Remove(ctx, &codeserverpb.RemoveRequest{Location: name})
		if err != nil {
			err = deployError(err)
		}
		return err
	}, func(wait time.Duration) {
		a.ui.event("waiting", map[string]any{"location": name, "milliseconds": milliseconds(wait)},
			"%-14s %9s  another deploy of %s is under way", "wait", took(wait), name)
	})
	if err != nil {
		return err
	}
	a.ui.event("removed", map[string]any{"location": name, "milliseconds": milliseconds(time.Since(start))},
		"%-14s %9s  %s", "removed", took(time.Since(start)), name)
	return nil
}
