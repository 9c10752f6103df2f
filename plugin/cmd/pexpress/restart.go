package main

import (
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func (a *app) restartCommand() *cobra.Command {
	var to string
	var timeout time.Duration
	var trial canary
	c := &cobra.Command{
		Use:   "restart [LOCATION]",
		Short: "Start another process of the version that serves, and move the traffic to it",
		Long: `Start another process of the version that a location serves, as for a secret that was changed. It is started beside
the one that serves, gets the traffic when it is ready, and the one before ends when it has finished what it began. If it
does not become ready the one before serves on, and the error shows the last lines of the log.

Nothing is built or deployed: what is in the project's files and in the cache does not matter. LOCATION may be left out if
the codeserver has only one, or only one of the project's.

With --canary the new process gets that share of the requests first, as a new version does with 'pexpress deploy'.`,
		Args: takes(0, 1, "give one LOCATION at most"),

		ValidArgsFunction: a.completeLocations,
		RunE: func(c *cobra.Command, args []string) error {
			if err := trial.check(c); err != nil {
				return err
			}
			srv, err := a.dial(c.Context(), to)
			if err != nil {
				return err
			}
			defer srv.Close()
			list, err := srv.List(c.Context(), &codeserverpb.ListRequest{})
			if err != nil {
				return deployError(err)
			}
			l, err := a.locationIn("restart", list.GetLocations(), args)
			if err != nil {
				return err
			}
			start := time.Now()
			stream, err := srv.Restart(c.Context(), &codeserverpb.RestartRequest{
				Location: l.GetName(), ReadyTimeout: durationpb.New(timeout), Canary: trial.message(),
			})
			if err != nil {
				return deployError(err)
			}
			spec := firstOf(l, l.GetCurrent()).GetSpec()
			defer a.showCanary(c.Context(), srv, &codeserverpb.DeployRequest{Location: l.GetName(), Spec: spec, Canary: trial.message()})()
			return a.follow(stream, start, 1, timeout)
		},
	}
	serverFlag(c, &to)
	c.Flags().DurationVar(&timeout, "ready-timeout", time.Minute, "how long the new process may take to become ready; once more as long when it is started by itself because it was not, forked, and where files of dependencies were damaged")
	trial.flags(c)
	return c
}
