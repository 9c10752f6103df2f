package main

import (
	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/auth"
)

const tokenHelp = `Make a token that nobody can guess. It prints the token, which the client keeps secret, and a line for the server's --tokens
file, which holds only its hash. To replace a token, add the new line, hand out the new token, then delete the old line.

  pexcache token ci
  bazel build --remote_cache=grpcs://HOST:8980 --remote_header="Authorization=Bearer TOKEN" //...`

func tokenCommand(u *ui) *cobra.Command {
	return &cobra.Command{
		Use: "token NAME", Short: "Make a static token", Long: tokenHelp, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			token, line, err := auth.NewToken(args[0])
			if err != nil {
				return usageError{err}
			}
			u.event("token", map[string]string{"principal": "token:" + args[0], "token": token, "line": line},
				"token: %s\nline:  %s\n\nIts principal is token:%s. The token is not stored anywhere.", token, line, args[0])
			return nil
		},
	}
}
