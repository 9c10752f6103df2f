package main

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/cache/remote"
)

// cacheFailure returns what a failure of a cache that is no directory comes to: which cache, what is wrong, what to do. What
// was under way at that moment is left out, since any other step would have failed as well. The text is what counts, because
// a builder's failure comes through another process as text.
func (a *app) cacheFailure(err error) error {
	u, uerr := url.Parse(a.cache)
	if err == nil || uerr != nil || u.Scheme == "" {
		return err
	}
	text, address := err.Error(), u.Redacted()
	if strings.HasPrefix(u.Scheme, "http") {
		return webFailure(address, err)
	}
	i := strings.LastIndex(text, "cache "+address+": ")
	if i < 0 {
		return err
	}
	line, _, _ := strings.Cut(text[i:], "\n")
	return unavailableError{cacheError{errors.New(line)}}
}

// cacheError is a failure of the cache itself.
type cacheError struct{ error }

func (e cacheError) Unwrap() error { return e.error }

// isCacheFailure reports whether an error of cacheFailure is the cache's.
func isCacheFailure(err error) bool {
	var failure cacheError
	return errors.As(err, &failure)
}

// answered matches what package httpcache says of an answer that is none of a cache's.
var answered = lazy.Regexp(`the cache answered (\d{3})[^:]*: (.*)`)

// ofStatus are the codes that a pexcache's HTTP answers stand for.
var ofStatus = map[int]codes.Code{
	400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 413: codes.ResourceExhausted,
	429: codes.ResourceExhausted, 503: codes.Unavailable, 507: codes.ResourceExhausted,
}

// webFailure is cacheFailure for a cache that speaks HTTP. Other errors, of an index's URL for one, stay as they are.
func webFailure(address string, err error) error {
	var request *url.Error
	if errors.As(err, &request) && strings.HasPrefix(request.URL, strings.TrimSuffix(address, "/")+"/") {
		text := request.Err.Error()
		says := remote.Explain(address, codes.Unavailable, text)
		if says == "" && request.Timeout() {
			says = remote.Explain(address, codes.DeadlineExceeded, text)
		}
		if says != "" {
			text = says
		}
		return unavailableError{cacheError{fmt.Errorf("cache %s: %s", address, text)}}
	}
	m := answered().FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	status, _ := strconv.Atoi(m[1]) // three digits
	text := m[2]
	if says := remote.Explain(address, ofStatus[status], text); says != "" {
		text = says
	}
	return unavailableError{cacheError{fmt.Errorf("cache %s: %s", address, text)}}
}
