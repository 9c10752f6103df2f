package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/lazy"
)

// Error is a call that a server refused or did not answer. Its text is one line: which cache, what is wrong, what to do.
type Error struct {
	Target string // the cache's address, as Dial was given it
	What   string // what was asked, with the digest
	Err    error  // carries the call's status
}

// Error implements error.
func (e *Error) Error() string {
	text := detail(e.Err)
	if says := Explain(e.Target, status.Code(e.Err), text); says != "" {
		return fmt.Sprintf("cache %s: %s", e.Target, says)
	}
	return fmt.Sprintf("cache %s: %s: %s", e.Target, e.What, text)
}

func (e *Error) Unwrap() error { return e.Err }

// layers are what gRPC and the SDK's retries put before what was said.
var layers = lazy.Regexp(`^(rpc error: code = \w+ desc = |retry budget exhausted \(\d+ attempts\): |connection error: desc = |"?transport: |Error while dialing: )+`)

// detail returns what was said, without the layers that carried it.
func detail(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	return strings.ReplaceAll(strings.TrimSuffix(layers().ReplaceAllString(text, ""), `"`), `\"`, `"`)
}

// unknownInstance is what a server says of an instance that it does not serve.
const unknownInstance = "the configuration has no such instance"

// Explain says in a few words why the cache at target did not do what was asked, and what helps; "" if the call's own text
// says it best.
func Explain(target string, code codes.Code, text string) string {
	switch code {
	case codes.Unavailable, codes.Unknown:
		for _, h := range webHints {
			if strings.Contains(text, h.text) {
				return h.says
			}
		}
		if says := cacheWords.Hint(text); says != "" {
			return says
		}
		if broken(text) {
			return "the connection broke off: run the command again; what was stored before is kept"
		}
	case codes.Unauthenticated:
		if strings.Contains(text, "none were shown") || strings.Contains(text, "shows no credentials") {
			return "the server asks who you are: set PEXPRESS_CACHE_TOKEN, or PEXPRESS_CACHE_CERT and PEXPRESS_CACHE_KEY"
		}
		return text + "; the token is what PEXPRESS_CACHE_TOKEN holds"
	case codes.PermissionDenied:
		if strings.Contains(text, "has no write-") {
			return text + ". Without it hits can be read, and nothing new be built: another cache: PEXPRESS_CACHE or --cache"
		}
		return text
	case codes.InvalidArgument:
		if name, _, ok := strings.Cut(text, ": "+unknownInstance); ok {
			return fmt.Sprintf("the server has no %s: the address's path names it, as in grpc://HOST:PORT/INSTANCE", name)
		}
	case codes.ResourceExhausted:
		return afterDigest().ReplaceAllString(text, "")
	case codes.DeadlineExceeded:
		return "no answer in time: is the server stopped, overloaded or cut off? Run the command again then; what was stored before is kept"
	}
	return ""
}

// afterDigest matches what precedes the reason why a blob was not taken.
var afterDigest = lazy.Regexp(`^(put blob [0-9a-f]+/[0-9]+: )+`)

// broken reports whether a connection ended while it was used.
func broken(text string) bool {
	for _, s := range []string{"EOF", "connection reset", "broken pipe", "transport is closing", "closing transport", "server is closing"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// failed turns what a call said into an Error. What has no status did not come from a call, but from the source of an
// upload: it stays as it is.
func (c *Cache) failed(what string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); !ok && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", status.FromContextError(err).Err(), err)
	}
	return &Error{Target: c.target, What: what, Err: err}
}

// rpcError turns what a call about one digest said into the errors of package cache.
func (c *Cache) rpcError(what string, d digest.Digest, err error) error {
	if err != nil && status.Code(err) == codes.NotFound {
		return cache.NotFound(what, d)
	}
	return c.failed(fmt.Sprintf("%s %s", what, d), err)
}
