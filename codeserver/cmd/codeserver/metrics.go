package main

import (
	"net/http"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/local"
	"github.com/pexpress/pexpress/codeserver/page"
)

// guardMetrics lets those see the metrics who may read all locations; where nobody is asked who they are, the machine's own
// users, by a name that is the machine's: another that leads here would have somebody else's pages read them.
func guardMetrics(metrics http.Handler, o page.Options) http.Handler {
	if o.Authenticator == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !local.IsHost(r.Host) {
				http.Error(w, "metrics are told to localhost and addresses of the loopback interface alone", http.StatusMisdirectedRequest)
				return
			}
			metrics.ServeHTTP(w, r)
		})
	}
	return o.Authenticator.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := cache.PrincipalOf(r.Context())
		switch {
		case o.Policy.MayReadAll(who):
			metrics.ServeHTTP(w, r)
		case who == auth.Anonymous:
			auth.Challenge(w, "metrics need the right to read all locations")
		default:
			http.Error(w, "metrics cover all locations, and "+who+" may not read all of them: who runs the codeserver can grant it", http.StatusForbidden)
		}
	}))
}
