package auth

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/pexpress/pexpress/cache"
)

// HTTP returns next behind authentication: the principal is in the context of the requests that it gets. A token comes
// as a bearer's, or as the password of basic authentication with any user name, since that is what a .netrc and a URL
// can hold.
func (a *Authenticator) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := shownHTTP(r)
		var name string
		if err == nil {
			name, err = a.Principal(r.Context(), c)
		}
		switch {
		case err == nil:
			next.ServeHTTP(w, r.WithContext(cache.WithPrincipal(r.Context(), name)))
		case errors.Is(err, ErrUnavailable):
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			Challenge(w, err.Error())
		}
	})
}

// Challenge answers 401 in a way that has browsers ask for a password. The realm is of no one of the project's servers.
func Challenge(w http.ResponseWriter, says string) {
	w.Header().Add("WWW-Authenticate", `Basic realm="pexpress: any user name, a token as the password", charset="UTF-8"`)
	w.Header().Add("WWW-Authenticate", "Bearer")
	http.Error(w, says, http.StatusUnauthorized)
}

func shownHTTP(r *http.Request) (Credentials, error) {
	c := Credentials{Certificate: leaf(r.TLS)}
	headers := r.Header.Values("Authorization")
	switch len(headers) {
	case 0:
		return c, nil
	case 1:
	default:
		return c, fmt.Errorf("%w: the request has %d authorization headers", ErrRefused, len(headers))
	}
	if _, password, ok := r.BasicAuth(); ok {
		if password == "" {
			return c, fmt.Errorf("%w: the password is empty: it has to be a token", ErrRefused)
		}
		c.Token = password
		return c, nil
	}
	var err error
	c.Token, err = bearerToken(headers[0])
	return c, err
}
