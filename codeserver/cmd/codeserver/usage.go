package main

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/spf13/cobra"
)

// Exit statuses; the help text lists them for users.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// usageText matches what cobra says of a command line that makes no sense; it has no type for it.
var usageText = regexp.MustCompile(`^(unknown command|accepts |required flag)`)

// asUsage says of a command line that makes no sense which command explains itself.
func asUsage(c *cobra.Command, err error) error {
	var usage usageError
	if err == nil || !errors.As(err, &usage) && !usageText.MatchString(err.Error()) {
		return err
	}
	return usageError{fmt.Errorf("%w; see '%s --help'", err, c.CommandPath())}
}

func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailed
}
