// Package once lets several callers share one piece of work without sharing each other's cancellation.
package once

import (
	"context"
	"errors"

	"golang.org/x/sync/singleflight"
)

// abandonedError is the error of work that ended because whoever began it gave up.
type abandonedError struct{ error }

func (e *abandonedError) Unwrap() error { return e.error }

// Do runs fn unless it runs for key already, and returns its result. When the one that began it gives up, another that
// waits begins again: one client's Ctrl-C is no failure of the others' deploys. Do returns when ctx ends; fn should too.
func Do[T any](ctx context.Context, g *singleflight.Group, key string, fn func() (T, error)) (T, error) {
	for {
		ch := g.DoChan(key, func() (any, error) {
			v, err := fn()
			if err != nil && ctx.Err() != nil {
				err = &abandonedError{err}
			}
			return v, err
		})
		select {
		case <-ctx.Done():
			return *new(T), ctx.Err()
		case r := <-ch:
			var abandoned *abandonedError
			if errors.As(r.Err, &abandoned) && ctx.Err() == nil {
				continue
			}
			v, _ := r.Val.(T)
			return v, r.Err
		}
	}
}
