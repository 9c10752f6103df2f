package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/spf13/cobra"
)

// version is the release that this is on the way to.
const version = "0.1.0-dev"

// Exit statuses; the help text lists them for users.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitConfig      = 3
	exitUnsound     = 4
	exitNotFound    = 5
	exitUnavailable = 6
	exitRefused     = 7
)

const rootHelp = `pexcache is a cache for builds that speaks the Remote Execution API v2 and Bazel's HTTP protocol. It keeps what it is
given on a disk, in an S3 bucket, or in a bucket behind a disk; any number of nodes may share a bucket.

  pexcache serve --disk DIR                            for one machine
  pexcache serve --disk DIR --s3 s3://BUCKET/PREFIX    for a team
  pexcache serve --config /etc/pexcache.toml           the same keys in a file, and all others

  pexcache stats      what a server or a bucket holds, and what it costs
  pexcache gc         delete from the bucket what was used longest ago
  pexcache verify     compare the bucket's index with its objects; scrub reads all of them
  pexcache purge      remove ActionResults by who wrote them and when
  pexcache pin        keep a deployment's trees from gc; unpin, roots

Exit status: 0 done; 1 something failed that is not listed here; 2 wrong usage; 3 the configuration was refused;
4 what is stored is damaged; 5 there is no such bucket, cache, disk tier, instance, pin or blob; 6 the server or the bucket
could not be reached, or another process has the disk or the address; 7 the credentials were refused.`

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// configError is a configuration that is refused.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

func configErrorf(format string, args ...any) error { return configError{fmt.Errorf(format, args...)} }

// unavailableError is a server or bucket that could not be used.
type unavailableError struct{ error }

func (e unavailableError) Unwrap() error { return e.error }

// notFoundError is the name of something that is not there.
type notFoundError struct{ error }

func (e notFoundError) Unwrap() error { return e.error }

func notFoundErrorf(format string, args ...any) error {
	return notFoundError{fmt.Errorf(format, args...)}
}

// refusedError is a server or bucket that does not let in whoever asks.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// errUnsound says that a check found damage.
var errUnsound = errors.New("what is stored is damaged")

func exitCode(err error) int {
	var usage usageError
	var config configError
	var unavailable unavailableError
	var absent notFoundError
	var refused refusedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &config):
		return exitConfig
	case errors.Is(err, errUnsound):
		return exitUnsound
	case errors.As(err, &absent):
		return exitNotFound
	case errors.As(err, &refused):
		return exitRefused
	case errors.As(err, &unavailable):
		return exitUnavailable
	}
	return exitFailed
}

// usageText matches what cobra says of a command line that makes no sense; it has no type for it.
var usageText = regexp.MustCompile(`^(unknown command|accepts |requires at |unknown shorthand|required flag|if any flags in the group|at least one of the flags)`)

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	u := &ui{out: stdout, err: stderr}
	root := command(u)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && usageText.MatchString(err.Error()) {
		err = usageError{fmt.Errorf("%w; see pexcache --help", err)}
	}
	if err != nil {
		u.fail(err)
	}
	return err
}

func command(u *ui) *cobra.Command {
	var output string
	root := &cobra.Command{
		Use: "pexcache", Version: version, Short: "A build cache over S3 that any client trusts", Long: rootHelp,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if u.json = output == "json"; !u.json && output != "text" {
				return usageError{fmt.Errorf("--output is text or json, not %q", output)}
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, c.CommandPath())}
	})
	root.PersistentFlags().StringVar(&output, "output", "text", "text, or json: one event a line on standard output")
	root.AddCommand(serveCommand(), statsCommand(u), verifyCommand(u), scrubCommand(u), rebuildCommand(u), gcCommand(u),
		purgeCommand(u), pinCommand(u), unpinCommand(u), rootsCommand(u), tokenCommand(u))
	return root
}
