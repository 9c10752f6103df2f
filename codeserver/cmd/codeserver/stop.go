package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/codeserver"
)

const stopHelp = `End what serves a state directory: the codeserver, if one runs, and all versions, also those that go on without it after
a SIGTERM (see serve --adopt-within). It returns when nothing of them is left.`

func stopCommand() *cobra.Command {
	var state string
	c := &cobra.Command{
		Use: "stop --state DIR", Short: "End a codeserver and its versions", Long: stopHelp, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return codeserver.Stop(c.Context(), state, slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil)))
		},
	}
	c.Flags().StringVar(&state, "state", "", "directory that keeps what is served (required)")
	if err := c.MarkFlagRequired("state"); err != nil {
		panic(err) // there is no such flag
	}
	return c
}
