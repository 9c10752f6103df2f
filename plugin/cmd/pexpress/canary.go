package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
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
	t.errors = 1
	c.Flags().Var(&percent{&t.percent, 1, 99, "a share is 1 to 99 percent"}, "canary", "give the new version this `PERCENT` of the requests first, 1 to 99")
	c.Flags().DurationVar(&t.duration, "canary-for", 30*time.Second, "how long the canary lasts")
	c.Flags().Var(&percent{&t.errors, 1, 100, "it is 1 to 100 percent points"}, "canary-errors", "end the canary when it fails more than `POINTS` percent points more of its requests than the old version")
	c.Flags().Var(&percent{&t.latency, 0, math.MaxInt32, "it is a percentage"}, "canary-latency", "end the canary when its median latency exceeds this `PERCENT` of the old version's (default not looked at)")
}

// percent is a flag that takes a percentage, with or without its sign.
type percent struct {
	value       *int
	least, most int
	is          string
}

// Set implements pflag.Value. It refuses what is not in the range, also a share of 0: the version would get all requests untried.
func (p *percent) Set(s string) error {
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(s, "%")))
	if err != nil || n < p.least || n > p.most {
		return fmt.Errorf("%s, in whole numbers such as 10 or 10%%", p.is)
	}
	*p.value = n
	return nil
}

// String implements pflag.Value.
func (p *percent) String() string {
	if p.value == nil || *p.value == 0 {
		return "" // so that the help text says no default
	}
	return strconv.Itoa(*p.value)
}

// Type implements pflag.Value.
func (p *percent) Type() string { return "percent" }

// check refuses what makes no trial.
func (t *canary) check(c *cobra.Command) error {
	asked := c.Flags().Changed("canary")
	for _, more := range []string{"canary-for", "canary-errors", "canary-latency"} {
		if c.Flags().Changed(more) && !asked {
			return usageError{fmt.Errorf("--%s is for --canary: say which share of the requests the new version gets first", more)}
		}
	}
	if asked && t.duration <= 0 {
		return usageError{fmt.Errorf("--canary-for %s: say more than nothing", t.duration)}
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
