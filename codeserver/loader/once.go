package loader

import (
	"context"
	"errors"

	"golang.org/x/sync/singleflight"
)

// abandonedError is the error of a call that ended because whoever began it gave up.
type abandonedError struct{ error }

func (e *abandonedError) Unwrap() error { return e.error }

// once runs fn unless it runs for key already, and returns its result. When the one that began it gives up, another
// that waits begins again: one client's Ctrl-C is no failure of the others' deploys.
func once[T any](ctx context.Context, g *singleflight.Group, key string, fn func() (T, error)) (T, error) {
	for {
		v, err, _ := g.Do(key, func() (any, error) {
			v, err := fn()
			if err != nil && ctx.Err() != nil {
				err = &abandonedError{err}
			}
			return v, err
		})
		var abandoned *abandonedError
		if errors.As(err, &abandoned) && ctx.Err() == nil {
			continue
		}
		out, _ := v.(T)
		return out, err
	}
}
