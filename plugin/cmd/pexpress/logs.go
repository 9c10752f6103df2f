package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/lazy"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// colours are what changes how text looks on a terminal (ECMA-48's SGR), and nothing else. They are not shown to people.
var colours = lazy.Regexp(`\x1b\[[0-9;]*m`)

func (a *app) logsCommand() *cobra.Command {
	var to, version string
	var follow bool
	var tail int32
	c := &cobra.Command{
		Use:   "logs LOCATION",
		Short: "Show what a version wrote to its standard output and error",
		Long: `Show what a version wrote to its standard output and error: the one that serves, or the one that --version names.

With --follow it goes on until interrupted, or until the version's process has ended, as it does when a deploy has replaced
it and it has finished what it began. A line on standard error says then what serves the location, and how to follow that.`,
		Args: takes(1, 1, "give one LOCATION; --version names one of its versions"),

		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			srv, err := a.dial(c.Context(), to)
			if err != nil {
				return err
			}
			defer srv.Close()
			stream, err := srv.Logs(c.Context(), &codeserverpb.LogsRequest{
				Location: args[0], Version: version, Tail: tail, Follow: follow,
			})
			if err != nil {
				return deployError(err)
			}
			for {
				line, err := stream.Recv()
				if err == io.EOF && follow && c.Context().Err() == nil {
					a.reportEnded(c.Context(), srv, args[0], version)
				}
				if err == io.EOF || c.Context().Err() != nil {
					return nil
				}
				if err != nil {
					return deployError(err)
				}
				version = line.GetVersion()
				t := line.GetTime().AsTime()
				a.ui.event("log", map[string]any{"time": t, "version": line.GetVersion(), "text": line.GetText()},
					"%s %s", t.Local().Format("15:04:05.000"), colours().ReplaceAllString(line.GetText(), ""))
			}
		},
	}
	serverFlag(c, &to)
	c.Flags().StringVar(&version, "version", "", "name of a version, or a unique prefix, also of one whose deploy failed (default: the one that serves)")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new lines as they come")
	c.Flags().Int32VarP(&tail, "tail", "n", 0, "only this many of the last lines (default: all that are kept)")
	return c
}

// reportEnded says that a version whose log was followed has ended, and what to follow now. version is empty if it wrote nothing, and was
// not named.
func (a *app) reportEnded(ctx context.Context, srv codeserverpb.CodeServerClient, location, version string) {
	text := "the version has ended"
	if version != "" {
		text = short(version) + " has ended"
	}
	list, err := srv.List(ctx, &codeserverpb.ListRequest{})
	now := locationOf(list.GetLocations(), location).GetCurrent()
	switch {
	case err != nil: // what serves is not known
	case now == "":
		text += fmt.Sprintf("; no version of %s serves", location)
	case version != "" && strings.HasPrefix(now, version):
		text += fmt.Sprintf(", and is started again: 'pexpress logs -f %s' follows it", location)
	default:
		text += fmt.Sprintf("; %s serves %s now: 'pexpress logs -f %s' follows it", short(now), location, location)
	}
	a.ui.note("log-ended", map[string]any{"location": location, "version": version, "serving": now}, text)
}
