package ci

import (
	"fmt"
	"net/url"
	"strings"
)

// Overlay returns the address of the instance that a pull request uses in place of the one at address: the same cache with
// the instance named, in which {number} stands for the pull request's. It reports false if there is none: a bucket or a
// directory lets everyone write who can read, and a socket has one instance.
func Overlay(address, instance string, number int) (string, bool, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", false, fmt.Errorf("cache address %q: %w", address, err)
	}
	switch u.Scheme {
	case "grpc", "grpcs", "http", "https":
	default:
		return "", false, nil
	}
	u.Path = "/" + strings.Trim(strings.ReplaceAll(instance, "{number}", fmt.Sprint(number)), "/")
	u.RawPath = ""
	return u.String(), true, nil
}
