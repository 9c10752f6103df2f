// Package plugin runs builders: programs that turn a REAPI Action into its outputs, reading from and writing to a CAS
// endpoint of their own, and nothing else.
//
// A builder is a hashicorp/go-plugin process that speaks gRPC over a unix socket (proto/v1/builder.proto). The
// built-in PEX builder is the pexpress binary itself, started the same way as anybody else's: a builder's main calls
// [Serve], a host calls [Start].
package plugin

import (
	"context"
	"errors"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	goplugin "github.com/hashicorp/go-plugin"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// A builder's Build fails with an error that wraps one of these; any other one means that the builder is at fault.
var (
	// ErrInvalidAction says that the Command is not one the builder knows, or that its inputs are wrong. The message is
	// for the user.
	ErrInvalidAction = errors.New("invalid action")
	// ErrInputUnreadable says that an input that the Action declares could not be read.
	ErrInputUnreadable = errors.New("input unreadable")
	// ErrOutputVersion says that the Command asks for an output version that the builder does not write.
	ErrOutputVersion = errors.New("output version not supported")
	// ErrResult says that a builder's answer is none that a host may believe. It comes with ErrBuilder.
	ErrResult = errors.New("a result that cannot be used")
	// ErrBuilder says that a builder crashed, hung, could not be started or answered nonsense.
	ErrBuilder = errors.New("builder failed")
)

// Description says what a builder is.
type Description struct {
	// Name as in pexpress-plugin-NAME.
	Name string
	// OutputVersion changes whenever the same inputs would give other outputs.
	OutputVersion string
	// Kinds are the second words of the Commands that the builder runs, such as "deps".
	Kinds []string
}

// Builder builds Actions.
type Builder interface {
	Describe(ctx context.Context) (Description, error)
	// Build runs the Action and returns its result; all that the result names is in the CAS by then.
	Build(ctx context.Context, cas cache.CAS, action digest.Digest) (*repb.ActionResult, error)
}

// handshake is what a builder and its host agree on before they speak. The cookie only keeps people from starting a
// builder by hand; it protects nothing.
var handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  ProtocolVersion,
	MagicCookieKey:   "PEXPRESS_PLUGIN",
	MagicCookieValue: "be64db6a-builder",
}

// pluginName is the one plugin that a builder process serves.
const pluginName = "builder"

// maxMessage bounds a message between host and builder. They carry digests, not contents: an ActionResult is small.
const maxMessage = 16 << 20
