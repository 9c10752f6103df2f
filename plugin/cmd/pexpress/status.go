package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func (a *app) statusCommand() *cobra.Command {
	var to string
	var watch bool
	var every time.Duration
	c := &cobra.Command{
		Use:   "status [LOCATION]",
		Short: "Show what a codeserver serves",
		Args:  takes(0, 1, "give one LOCATION at most"),

		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkEvery(c, watch, every); err != nil {
				return err
			}
			srv, err := a.dial(c.Context(), to)
			if err != nil {
				return err
			}
			defer srv.Close()
			name := strings.Join(args, "")
			if watch {
				return a.watch(c.Context(), srv, name, every)
			}
			list, err := srv.List(c.Context(), &codeserverpb.ListRequest{})
			if err != nil {
				return deployError(err)
			}
			found := false
			for _, l := range list.GetLocations() {
				if name == "" || l.GetName() == name {
					found = true
					a.reportLocation(l)
				}
			}
			if name == "" && !found {
				a.ui.event("empty", map[string]any{}, "the codeserver serves nothing yet")
			}
			if name != "" && !found {
				return inputError{fmt.Errorf("the codeserver has no location %q", name)}
			}
			return nil
		},
	}
	serverFlag(c, &to)
	c.Flags().BoolVar(&watch, "watch", false, "go on: a table that is kept up to date on a terminal, else a line for each change")
	c.Flags().DurationVar(&every, "every", 0, "with --watch: show usage this often, also where nothing else changes (default 1s on a terminal, else never)")
	return c
}

func (a *app) reportLocation(l *codeserverpb.Location) {
	if a.ui.json {
		b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(l)
		if err != nil {
			a.ui.warn(fmt.Sprintf("location %s cannot be shown: %v", l.GetName(), err))
			return
		}
		a.ui.event("location", rawJSON(b), "")
		return
	}
	a.ui.event("location", nil, "%s", locationText(l))
}

// rawJSON is an object that is JSON already.
type rawJSON []byte

// MarshalJSON implements json.Marshaler.
func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

func (a *app) rollbackCommand() *cobra.Command {
	var to string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "rollback LOCATION [VERSION]",
		Short: "Move a location back to the version before, or to one that is kept",
		Args:  takes(1, 2, "give a LOCATION, and the VERSION that it is to have if not the one before"),

		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			srv, err := a.dial(c.Context(), to)
			if err != nil {
				return err
			}
			defer srv.Close()
			start := time.Now()
			req := &codeserverpb.RollbackRequest{Location: args[0], ReadyTimeout: durationpb.New(timeout)}
			if len(args) == 2 {
				req.Version = args[1]
			}
			stream, err := srv.Rollback(c.Context(), req)
			if err != nil {
				return deployError(err)
			}
			return withServed(c.Context(), srv, args[:1], a.follow(stream, start, 1, timeout))
		},
	}
	serverFlag(c, &to)
	c.Flags().DurationVar(&timeout, "ready-timeout", time.Minute, "how long the version may take to become ready")
	return c
}
