// Package auth says who makes a call: by a client certificate, a static token, or an OpenID Connect token. What the
// caller may do is not decided here but where instances are found (package instance).
//
// A principal's name says how it was shown: "cert:NAME", "token:NAME" or "oidc:NAME", so that no way of showing one can
// take the name of another. No two OpenID Connect issuers can name one principal, either. Who shows nothing is [Anonymous].
package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Anonymous is the principal of a caller who shows no credentials.
const Anonymous = "anonymous"

var (
	// ErrRefused is wrapped by the error for credentials that are shown and not good: such a caller is refused, and never
	// taken for one who shows nothing.
	ErrRefused = errors.New("credentials refused")
	// ErrUnavailable is wrapped by the error for credentials that cannot be judged now.
	ErrUnavailable = errors.New("credentials cannot be checked now")
	// errNotMine is how a Verifier passes a token on to the next one.
	errNotMine = errors.New("the token is of another kind")
)

// Verifier tells whose token it is.
type Verifier interface {
	// Verify returns the principal's name. The error never holds the token.
	Verify(ctx context.Context, token string) (string, error)
}

// Credentials is what a caller shows.
type Credentials struct {
	// Certificate is the client's, nil if it has none. Its chain must have been verified.
	Certificate *x509.Certificate
	// Token is that of a bearer, "" if there is none.
	Token string
}

// Options says what an Authenticator takes.
type Options struct {
	// Verifiers are asked in order for a token's principal.
	Verifiers []Verifier
	// Anonymous lets those pass who show nothing.
	Anonymous bool
}

// Authenticator turns credentials into a principal's name.
type Authenticator struct{ o Options }

// New returns an Authenticator.
func New(o Options) *Authenticator { return &Authenticator{o} }

// maxToken bounds the tokens that are looked at. Real ones are a few KiB at most.
const maxToken = 16 << 10

// Principal returns who shows c. A token counts before a certificate: a proxy's certificate says less than the token of
// the job behind it.
func (a *Authenticator) Principal(ctx context.Context, c Credentials) (string, error) {
	switch {
	case c.Token != "":
		return a.bearer(ctx, c.Token)
	case c.Certificate != nil:
		return certificate(c.Certificate)
	case a.o.Anonymous:
		return Anonymous, nil
	}
	return "", fmt.Errorf("%w: none were shown: send a token as 'authorization: Bearer TOKEN', or a client certificate", ErrRefused)
}

func (a *Authenticator) bearer(ctx context.Context, token string) (string, error) {
	if len(token) > maxToken {
		return "", fmt.Errorf("%w: the token has %d bytes, more than the %d allowed", ErrRefused, len(token), maxToken)
	}
	for _, v := range a.o.Verifiers {
		name, err := v.Verify(ctx, token)
		if errors.Is(err, errNotMine) {
			continue
		}
		if err != nil {
			return "", err
		}
		return checked(name)
	}
	return "", fmt.Errorf("%w: no one knows the token: it may be mistyped or revoked", ErrRefused)
}

// certificate names the principal of a client certificate: its one URI, as SPIFFE has it, or else its common name.
func certificate(c *x509.Certificate) (string, error) {
	switch {
	case len(c.URIs) == 1:
		return checked("cert:" + c.URIs[0].String())
	case len(c.URIs) > 1:
		return "", fmt.Errorf("%w: the client certificate has %d URIs, and only one can name the caller", ErrRefused, len(c.URIs))
	case c.Subject.CommonName == "":
		return "", fmt.Errorf("%w: the client certificate has neither a URI nor a common name", ErrRefused)
	}
	return checked("cert:" + c.Subject.CommonName)
}

// maxName bounds a principal's name: it is stored with each ActionResult.
const maxName = 256

// checked refuses names that would not be told apart in a log or a list.
func checked(name string) (string, error) {
	odd := func(r rune) bool {
		return r == utf8.RuneError || !unicode.IsGraphic(r) || unicode.IsSpace(r) && r != ' '
	}
	if len(name) > maxName || strings.IndexFunc(name, odd) >= 0 {
		return "", fmt.Errorf("%w: the principal's name %.300q is longer than %d bytes or holds control characters", ErrRefused, name, maxName)
	}
	return name, nil
}
