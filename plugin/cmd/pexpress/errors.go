package main

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/plugin"
)

// Exit statuses; the help text lists them for users.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInput       = 3
	exitBuilder     = 4
	exitNotReady    = 5
	exitUnavailable = 6
)

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// inputError is a project, lock or wheel that is refused.
type inputError struct{ error }

func (e inputError) Unwrap() error { return e.error }

func inputErrorf(format string, args ...any) error { return inputError{fmt.Errorf(format, args...)} }

// unavailableError is a cache, index or codeserver that could not be used.
type unavailableError struct{ error }

func (e unavailableError) Unwrap() error { return e.error }

// notReadyError is a new version that did not come to serve.
type notReadyError struct{ error }

func (e notReadyError) Unwrap() error { return e.error }

// exitError passes on the exit status of a program that pexpress ran; nothing is printed for it.
type exitError struct{ code int }

func (e *exitError) Error() string { return "the program failed" }

func exitCode(err error) int {
	var (
		exit        *exitError
		usage       usageError
		input       inputError
		unavailable unavailableError
		notReady    notReadyError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &notReady):
		return exitNotReady
	case errors.Is(err, cache.ErrFull), errors.As(err, &unavailable), status.Code(err) == codes.Unavailable:
		return exitUnavailable
	case errors.As(err, &input), errors.Is(err, plugin.ErrInvalidAction):
		return exitInput
	case errors.Is(err, plugin.ErrBuilder):
		return exitBuilder
	}
	return exitFailed
}
