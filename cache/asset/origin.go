package asset

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Allowed are the origins from which assets may be fetched.
type Allowed struct {
	origins  []origin
	networks []netip.Prefix
}

// origin is a scheme, a host or a pattern of hosts, and a port.
type origin struct{ scheme, host, port string }

// ParseAllowed reads a list of origins, https://HOST[:PORT] or http://…, and networks that are not public, 10.0.0.0/8.
// A host that begins with "*." stands for all names below it. A port that is not named is the scheme's own. A host is
// connected to only if its address is public or in one of the networks; a host that is an address needs no network.
func ParseAllowed(list []string) (Allowed, error) {
	var a Allowed
	for _, s := range list {
		if !strings.Contains(s, "://") {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return Allowed{}, fmt.Errorf("allowed origin %q is neither https://HOST, http://HOST nor a network: %w", s, err)
			}
			a.networks = append(a.networks, p.Masked())
			continue
		}
		u, err := url.Parse(s)
		if err != nil {
			return Allowed{}, fmt.Errorf("allowed origin: %w", err)
		}
		o, err := originOf(u)
		if err != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return Allowed{}, fmt.Errorf("allowed origin %q is not https://HOST[:PORT] or http://HOST[:PORT]", u.Redacted())
		}
		if strings.Contains(strings.TrimPrefix(o.host, "*."), "*") {
			return Allowed{}, fmt.Errorf("allowed origin %q: a star stands only for the first part of a name", s)
		}
		a.origins = append(a.origins, o)
	}
	return a, nil
}

var errOrigin = errors.New("it is not an http or https URL of a host")

func originOf(u *url.URL) (origin, error) {
	o := origin{strings.ToLower(u.Scheme), strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), u.Port()}
	if o.host == "" || u.Opaque != "" || u.User != nil {
		return o, errOrigin
	}
	switch {
	case o.scheme == "https" && o.port == "":
		o.port = "443"
	case o.scheme == "http" && o.port == "":
		o.port = "80"
	case o.scheme != "https" && o.scheme != "http":
		return o, errOrigin
	}
	return o, nil
}

// errForbidden is wrapped by errors about what the configuration does not allow.
var errForbidden = errors.New("the configuration of this server does not allow it")

// check refuses URLs that are not of an allowed origin.
func (a Allowed) check(u *url.URL) error {
	o, err := originOf(u)
	if err != nil {
		return fmt.Errorf("%w: %w", errForbidden, err)
	}
	for _, p := range a.origins {
		below, wild := strings.CutPrefix(p.host, "*")
		if p.scheme == o.scheme && p.port == o.port && (p.host == o.host || wild && strings.HasSuffix(o.host, below)) {
			return nil
		}
	}
	return fmt.Errorf("%w: origin %s://%s:%s is not listed", errForbidden, o.scheme, o.host, o.port)
}

// special are networks that are not public and that package netip has no word for, IPv6 networks that lead to IPv4
// addresses among them.
var special = func() (ps []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "240.0.0.0/4", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16",
	} {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}()

// public reports whether an address is one of the Internet at large.
func public(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// reachable refuses addresses that a connection to host may not lead to.
func (a Allowed) reachable(host, address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := ap.Addr().Unmap().WithZone("")
	if public(ip) {
		return nil
	}
	// An origin that is an address has been found in the list already.
	if literal, err := netip.ParseAddr(host); err == nil && literal.Unmap().WithZone("") == ip {
		return nil
	}
	for _, p := range a.networks {
		if p.Contains(ip) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s has the address %s, which is not public and in no listed network", errForbidden, host, ip)
}

// maxRedirects is what browsers follow, about.
const maxRedirects = 10

// newClient returns a client that keeps to what is allowed.
func newClient(o Options) *http.Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		// Control sees each address just before it is connected to: a name cannot mean another one a moment later.
		d := net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
			return o.Allow.reachable(host, address)
		}}
		return d.DialContext(ctx, network, addr)
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dial, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
			ForceAttemptHTTP2: true, DisableCompression: true, MaxIdleConns: 32, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			if err := o.Allow.check(req.URL); err != nil {
				return fmt.Errorf("redirected: %w", err)
			}
			if from, err := originOf(via[0].URL); err != nil || !sameOrigin(from, req.URL) {
				req.Header = http.Header{"User-Agent": {userAgent}}
			}
			return nil
		},
	}
}

func sameOrigin(o origin, u *url.URL) bool {
	other, err := originOf(u)
	return err == nil && other == o
}
