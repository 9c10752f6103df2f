package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// takes checks the number of a command's arguments, and says what to give where cobra would only count them. There is no
// upper bound if most is negative.
func takes(least, most int, give string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usageError{fmt.Errorf("%s; see '%s --help'", give, c.CommandPath())}
		}
		return nil
	}
}
