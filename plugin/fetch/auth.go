package fetch

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jdx/go-netrc"
)

// account is what an index URL says about whom to log in as.
type account struct {
	user  *url.Userinfo
	clear bool // the URL is not https: the password travels in the clear by the user's own choice
}

// canonicalHost returns a URL's host and port, the latter only where it is not the scheme's own.
func canonicalHost(u *url.URL) string {
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "https":
		return strings.TrimSuffix(host, ":443")
	case "http":
		return strings.TrimSuffix(host, ":80")
	}
	return host
}

// addUser remembers the credentials of an index URL for its host. name is what uv calls the index, "" for no name;
// "name=url" is how uv's environment variables may give it.
func (c *config) addUser(raw, name string) {
	if n, rest, ok := strings.Cut(raw, "="); ok && !strings.Contains(n, "/") {
		name, raw = n, rest
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return
	}
	if name != "" && u.User == nil {
		variable := "UV_INDEX_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name))
		if user, password := os.Getenv(variable+"_USERNAME"), os.Getenv(variable+"_PASSWORD"); user != "" || password != "" {
			u.User = url.UserPassword(user, password)
		}
	}
	if u.User != nil {
		c.users[canonicalHost(u)] = account{u.User, u.Scheme == "http"}
	}
}

func (c *config) readNetrc() error {
	path := os.Getenv("NETRC")
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil //nolint:nilerr // no home, no netrc
		}
		path = filepath.Join(home, ".netrc")
	}
	n, err := netrc.Parse(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	c.netrc = n
	return nil
}

// authorize adds the credentials for the request's host: those of its URL, else those that are configured.
func (c *config) authorize(req *http.Request) {
	if u := req.URL.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
		req.URL.User = nil // so that no error shows it
		return
	}
	if a, ok := c.users[canonicalHost(req.URL)]; ok {
		if a.clear || req.URL.Scheme == "https" {
			password, _ := a.user.Password()
			req.SetBasicAuth(a.user.Username(), password)
		}
		return
	}
	// Never in clear where others could listen: what netrc has for a host was not meant for this URL in particular.
	if c.netrc == nil || req.URL.Scheme != "https" && !loopback(req.URL.Hostname()) {
		return
	}
	if m := c.netrc.Machine(req.URL.Hostname()); m != nil && m.Get("login") != "" {
		req.SetBasicAuth(m.Get("login"), m.Get("password"))
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// redirect decides with which credentials a redirect is followed. Package http would pass them on to another port of the
// same host, to its subdomains, and from https to http.
func (c *config) redirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("redirected 10 times")
	}
	req.Header.Del("Authorization")
	first, last := via[0], via[len(via)-1]
	switch {
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		req.URL.User = nil
	case first.URL.Scheme == req.URL.Scheme && canonicalHost(first.URL) == canonicalHost(req.URL):
		if auth := first.Header.Get("Authorization"); auth != "" {
			req.Header.Set("Authorization", auth)
		}
	default:
		c.authorize(req)
	}
	return nil
}
