package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// servedTime is how long a deploy that failed waits to say what serves, which it does without.
const servedTime = 3 * time.Second

// servedError is why a deploy failed, with a line that says what serves all the same.
type servedError struct {
	error
	serves string
}

func (e servedError) Error() string {
	return strings.TrimRight(e.error.Error(), "\n") + "\n" + e.serves
}

func (e servedError) Unwrap() error { return e.error }

// withServed adds to why a deploy or rollback of locations failed what serves all the same, or what to do about another one that
// is under way. Where it is not known what serves, as when the codeserver is away, it says nothing.
func withServed(ctx context.Context, srv codeserverpb.CodeServerClient, locations []string, err error) error {
	switch status.Code(err) {
	case codes.OK, codes.Unavailable, codes.Unimplemented, codes.Unauthenticated:
		return err
	case codes.Aborted:
		if strings.HasSuffix(err.Error(), " is under way") {
			return fmt.Errorf("%w: run it again when that is done", err)
		}
		return err
	}
	called := errors.Is(err, context.Canceled)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), servedTime)
	defer cancel()
	found, lerr := settled(ctx, srv, locations)
	if lerr != nil {
		return err
	}
	var says []string
	for _, name := range locations {
		text := servedText(found[name], called)
		if text != "" && len(locations) > 1 {
			text = name + ": " + text
		}
		if text != "" {
			says = append(says, text)
		}
	}
	if len(says) == 0 {
		return err
	}
	return servedError{err, strings.Join(says, "; ")}
}

// settled returns the locations of these names once no deploy of them is under way any more: one that was called off takes a
// moment to be given up, or has gone through.
func settled(ctx context.Context, srv codeserverpb.CodeServerClient, names []string) (map[string]*codeserverpb.Location, error) {
	for {
		list, err := srv.List(ctx, &codeserverpb.ListRequest{})
		if err != nil {
			return nil, err
		}
		all, busy := map[string]*codeserverpb.Location{}, false
		for _, l := range list.GetLocations() {
			all[l.GetName()] = l
		}
		for _, name := range names {
			busy = busy || changing(all[name])
		}
		if !busy {
			return all, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// changing reports whether a location is being deployed, or about to serve another process of its version.
func changing(l *codeserverpb.Location) bool {
	for _, v := range l.GetVersions() {
		if v.GetState() == codeserverpb.State_STARTING {
			return true
		}
	}
	return l.GetCanary() != ""
}

// servedText says what serves a location, "" if that is not up. A deploy that was called off may have gone through, so that what
// serves is not what did before.
func servedText(l *codeserverpb.Location, called bool) string {
	if l.GetCurrent() == "" {
		return "no version serves"
	}
	if firstOf(l, l.GetCurrent()).GetState() != codeserverpb.State_READY {
		return ""
	}
	how := "goes on serving"
	if called {
		how = "serves"
	}
	return fmt.Sprintf("%s %s at %s", short(l.GetCurrent()), how, l.GetAddress())
}

// locationOf returns a codeserver's location of that name, nil if it has none.
func locationOf(all []*codeserverpb.Location, name string) *codeserverpb.Location {
	for _, l := range all {
		if l.GetName() == name {
			return l
		}
	}
	return nil
}
