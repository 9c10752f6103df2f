package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// canary is how a new version is tried before it gets all requests; percent 0, which nobody can ask for, is not at all.
type canary struct {
	percent, errors, latency int
	duration                 time.Duration
}

func (t *canary) flags(c *cobra.Command) {
	c.Flags().IntVar(&t.percent, "canary", 0, "give the new version this `PERCENT` of the requests first, 1 to 99")
	c.Flags().DurationVar(&t.duration, "canary-for", 30*time.Second, "how long the canary lasts")
	c.Flags().IntVar(&t.errors, "canary-errors", 1, "end the canary when it fails more than `POINTS` percent points more of its requests than the old version")
	c.Flags().IntVar(&t.latency, "canary-latency", 0, "end the canary when its median latency exceeds this `PERCENT` of the old version's (default not looked at)")
}

// check refuses what makes no trial, also a share of 0 that was asked for: the version would get all requests untried.
func (t *canary) check(c *cobra.Command) error {
	asked := c.Flags().Changed("canary")
	for _, more := range []string{"canary-for", "canary-errors", "canary-latency"} {
		if c.Flags().Changed(more) && !asked {
			return usageError{fmt.Errorf("--%s is for --canary: say which share of the requests the new version gets first", more)}
		}
	}
	switch {
	case asked && t.percent < 1 || t.percent > 99:
		return usageError{fmt.Errorf("--canary %d: a share is 1 to 99 percent", t.percent)}
	case t.percent != 0 && t.duration <= 0:
		return usageError{fmt.Errorf("--canary-for %s: say more than nothing", t.duration)}
	case t.errors < 1 || t.errors > 100 || t.latency < 0:
		return usageError{errors.New("--canary-errors is 1 to 100, --canary-latency 0 or more")}
	}
	return nil
}

// message returns the trial in the codeserver's words, nil if there is none.
func (t *canary) message() *codeserverpb.Canary {
	if t.percent == 0 {
		return nil
	}
	return &codeserverpb.Canary{
		Percent: int32(t.percent), Duration: durationpb.New(t.duration),
		MaxMoreErrorsPercent: int32(t.errors), MaxLatencyPercent: int32(t.latency),
	}
}
