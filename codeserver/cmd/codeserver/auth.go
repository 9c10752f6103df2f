package main

import (
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/local"
	"github.com/pexpress/pexpress/codeserver"
	"github.com/pexpress/pexpress/codeserver/access"
	"github.com/pexpress/pexpress/codeserver/sockets"
)

// guard keeps the control API from those who have no right to it.
type guard struct {
	config *access.Config
	opts   []grpc.ServerOption
	closed bool // callers have to say who they are
	users  codeserver.Users
	log    *slog.Logger
	socket string // to be removed at the end, "" if it is systemd's or there is none
}

// openGuard returns the guard that a configuration file describes. Without one whoever reaches the address has all rights.
func openGuard(path, address string, log *slog.Logger) (*guard, error) {
	g := &guard{config: &access.Config{}, opts: access.Limits().Options(), log: log}
	if path == "" {
		return g, nil
	}
	var err error
	if g.config, err = access.Load(path); err != nil {
		return nil, err
	}
	if err := g.config.CheckAddress(address); err != nil {
		return nil, err
	}
	opts, err := g.config.ServerOptions(onceEach(log))
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	g.opts, g.closed = append(opts, g.opts...), true
	return g, nil
}

// listen opens the control API's address, or takes it over from systemd or the process before.
func (g *guard) listen(f flags, set *sockets.Set) (net.Listener, error) {
	l, systemds, err := passed(set, controlSocket, f.listen)
	if l == nil && err == nil {
		l, err = listen(f.listen, f.remote || g.closed)
	}
	if err == nil && !systemds {
		if path, ok := local.Socket(f.listen); ok {
			g.socket = path
		}
		err = set.Keep(controlSocket, l)
	}
	if err != nil {
		return nil, err
	}
	if f.remote {
		return g.config.Listener(l), nil
	}
	return g.config.Listener(g.outside(l)), nil
}

// outside returns a listener that versions cannot talk to, as far as users tell them from others, where nobody is asked who
// they are. Of a unix socket the mode says who may use it.
func (g *guard) outside(l net.Listener) net.Listener {
	if g.closed || l.Addr().Network() != "tcp" || g.users.None() {
		return l
	}
	return &outside{l, g.users.Has, eachOnce(g.log, "a connection from this host is refused")}
}

// listen opens the control API's address. It is closed to others: a socket of this user's, or the loopback interface.
func listen(address string, remote bool) (net.Listener, error) {
	if path, ok := local.Socket(address); ok {
		return local.Listen(path)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usagef("--listen %s: %w; use host:port or unix:///socket", address, err)
	}
	if !local.IsHost(host) && !remote {
		return nil, usagef("--listen %s can be reached from other machines, and whoever reaches it can run any code here: say with --config who may do what, use a unix socket or a loopback address, or say --allow-unauthenticated-remote-access", address)
	}
	return net.Listen("tcp", address)
}

// onceEach returns a function that logs an error unless it is the one that was logged last: a file that cannot be read is
// tried again at each call.
func onceEach(log *slog.Logger) func(error) {
	var mu sync.Mutex
	last := ""
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if err.Error() != last {
			last = err.Error()
			log.Warn("what was read before still holds", "error", last)
		}
	}
}

// eachOnce returns a function that logs each error once.
func eachOnce(log *slog.Logger, what string) func(error) {
	var said sync.Map
	return func(err error) {
		if _, already := said.LoadOrStore(err.Error(), true); !already {
			log.Warn(what, "error", err)
		}
	}
}

const tokenHelp = `Make a token that nobody can guess. It prints the token, which the client keeps secret ($PEXPRESS_CODESERVER_TOKEN), and a
line for the file that the configuration's tokens names, which holds only its hash. The file is read at each call: to
replace a token, add the new line, hand out the new token, then delete the old line.`

func tokenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "token NAME", Short: "Make a token for the control API", Long: tokenHelp, Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			token, line, err := auth.NewToken(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "token: %s\nline:  %s\n\nIts principal is token:%s. The token is not stored anywhere.\n",
				token, line, args[0])
			return err
		},
	}
}
