package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// leastEvery is how often a codeserver sends usage at most.
const leastEvery = 500 * time.Millisecond

func checkEvery(c *cobra.Command, watch bool, every time.Duration) error {
	switch {
	case !c.Flags().Changed("every"):
	case !watch:
		return usageError{errors.New("--every is for --watch")}
	case every < leastEvery:
		return usageError{fmt.Errorf("--every %s: the least is %s", every, leastEvery)}
	}
	return nil
}

// watch shows each change until it is interrupted: in place on a terminal, else one after the other.
func (a *app) watch(ctx context.Context, srv *client.Client, name string, every time.Duration) error {
	if s := newScreen(a.ui, a.stdin); s != nil {
		if every == 0 {
			every = time.Second
		}
		return s.run(ctx, &feed{srv, name, every})
	}
	said := map[string]string{}
	return (&feed{srv, name, every}).each(ctx, func(l *codeserverpb.Location) {
		switch {
		case a.ui.json && isGone(l):
			a.ui.event("removed", map[string]string{"location": l.GetName()}, "")
		case a.ui.json:
			a.reportLocation(l)
		default:
			text := changeText(l, every > 0)
			if said[l.GetName()] != text {
				said[l.GetName()] = text
				a.ui.event("location", nil, "%s  %s", time.Now().Format(time.TimeOnly), text)
			}
		}
	})
}

// feed is what a codeserver says of its locations, or of the one that is named.
type feed struct {
	srv   codeserverpb.CodeServerClient
	name  string
	every time.Duration // usage, 0 for never
}

// each hands each message on until ctx ends, which is no error, or the codeserver does.
func (f *feed) each(ctx context.Context, take func(*codeserverpb.Location)) error {
	req := &codeserverpb.WatchRequest{Location: f.name}
	if f.every > 0 {
		req.UsageEvery = durationpb.New(f.every)
	}
	stream, err := f.srv.Watch(ctx, req)
	for err == nil {
		var l *codeserverpb.Location
		if l, err = stream.Recv(); err == nil {
			take(l)
		}
	}
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		return nil
	}
	return deployError(err)
}

// isGone reports whether a message says that its location is no more.
func isGone(l *codeserverpb.Location) bool {
	return len(l.GetVersions()) == 0 && l.GetAddress() == "" && l.GetChannel() == ""
}

// changeText says in a line how a location is.
func changeText(l *codeserverpb.Location, usage bool) string {
	if isGone(l) {
		return l.GetName() + "  removed"
	}
	text := l.GetName()
	if l.GetAddress() != "" {
		text += " at " + l.GetAddress() + listenText(l)
	}
	for _, v := range l.GetVersions() {
		current := serves(l, v)
		if !current && v.GetState() == codeserverpb.State_STOPPED {
			continue
		}
		text += fmt.Sprintf("  %s %s", short(v.GetName()), stateText(l, v))
		if current {
			text += " (serves)"
		}
		if n := v.GetUsage().GetRestarts(); n > 0 {
			text += ", " + count(n, "restart") + endingText(v)
		}
		if v.GetError() != "" {
			text += ": " + firstLine(v.GetError())
		}
		if usage && v.GetPid() != 0 {
			text += ", " + usesText(v.GetUsage())
		}
	}
	if failure := failureText(l); failure != "" {
		text += "; " + failure
	}
	return text + channelText(l)
}
