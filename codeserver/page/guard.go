package page

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/local"
)

// contentPolicy lets the page load its own style and scripts and talk to its own server, and has scripts put no text where it
// could become markup.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guard is in front of all: what every answer says to the browser, and which requests are no page's own.
func (p *Page) guard(next http.Handler) http.Handler {
	var foreign http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		// Without TLS the listener is on the loopback interface. A name of somebody else's that leads here would make their
		// pages this page's origin.
		if !p.opts.TLS && !local.IsHost(r.Host) {
			fail(w, http.StatusMisdirectedRequest, "this page answers to localhost and addresses of the loopback interface alone: "+
				"forward a port to it, or serve it with TLS by --config")
			return
		}
		if err := foreign.Check(r); err != nil || strings.HasPrefix(r.URL.Path, "/api/") && !fromHere(r) {
			fail(w, http.StatusForbidden, "the request comes from a page of another origin")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// fromHere reports whether a browser says that a request comes from the page itself. Other pages may not read answers
// anyway; they may not use up what is bounded, either.
func fromHere(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "" || site == "same-origin" || site == "none"
}

// known returns a handler of requests whose principal is in the context. One that changes something must show the key that
// goes with it, which other origins cannot read.
func (p *Page) known(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := p.identify(r)
		if err != nil {
			refuse(w, err)
			return
		}
		if r.Method != http.MethodGet && !p.hasKey(r, who) {
			fail(w, http.StatusForbidden, "the request lacks the page's key: load the page again")
			return
		}
		next(w, r.WithContext(cache.WithPrincipal(r.Context(), who)))
	})
}

// identify says who makes a request: whose session it is, else whose certificate, else nobody in particular.
func (p *Page) identify(r *http.Request) (string, error) {
	if p.opts.Authenticator == nil {
		return everyone, nil
	}
	c := auth.Credentials{}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && len(r.TLS.VerifiedChains[0]) > 0 {
		c.Certificate = r.TLS.VerifiedChains[0][0]
	}
	s, id := p.sessionOf(r)
	if s != nil {
		c.Token = s.token
	}
	who, err := p.opts.Authenticator.Principal(r.Context(), c)
	if s != nil && errors.Is(err, auth.ErrRefused) {
		p.sessions.end(id)
	}
	return who, err
}

// everyone is the principal where nobody is asked who they are.
const everyone = "everyone"

// refuse answers a request whose maker is not known.
func refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, auth.ErrUnavailable) {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	fail(w, http.StatusUnauthorized, err.Error())
}

// fail answers with an error in words.
func fail(w http.ResponseWriter, code int, says string) {
	writeJSON(w, code, map[string]string{"error": says})
}

// failed answers with an error of the control API.
func failed(w http.ResponseWriter, err error) {
	fail(w, statusOf(err), status.Convert(err).Message())
}

func statusOf(err error) int {
	switch status.Code(err) {
	case codes.InvalidArgument:
		return http.StatusBadRequest
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.Aborted, codes.FailedPrecondition:
		return http.StatusConflict
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	}
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}
