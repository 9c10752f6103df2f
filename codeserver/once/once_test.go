package once_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/singleflight"

	"github.com/pexpress/pexpress/codeserver/once"
)

func TestShared(t *testing.T) {
	var g singleflight.Group
	var runs atomic.Int64
	begun, finish := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	do := func() {
		v, err := once.Do(t.Context(), &g, "key", func() (int, error) {
			if runs.Add(1) == 1 {
				close(begun)
			}
			<-finish
			return 7, nil
		})
		if v != 7 || err != nil {
			t.Errorf("got %d, %v", v, err)
		}
	}
	wg.Go(do)
	<-begun
	for range 5 {
		wg.Go(do)
	}
	close(finish)
	wg.Wait()
	require.LessOrEqual(t, runs.Load(), int64(6))
}

// TestAbandoned has the caller that began the work give up: the one that waits does it again and is told of no failure.
func TestAbandoned(t *testing.T) {
	var g singleflight.Group
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{})
	first := make(chan error)
	go func() {
		_, err := once.Do(ctx, &g, "key", func() (string, error) {
			close(begun)
			<-ctx.Done()
			return "", ctx.Err()
		})
		first <- err
	}()
	<-begun
	second := make(chan string)
	go func() {
		v, err := once.Do(t.Context(), &g, "key", func() (string, error) { return "done", nil })
		if err != nil {
			v = err.Error()
		}
		second <- v
	}()
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	require.Equal(t, "done", <-second)
}

func TestFailure(t *testing.T) {
	var g singleflight.Group
	broken := errors.New("broken")
	_, err := once.Do(t.Context(), &g, "key", func() (int, error) { return 0, broken })
	require.ErrorIs(t, err, broken)
}
