package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// work is one timed section: n operations, prepared before.
type work struct {
	n      int
	repeat bool    // begin again when all are done: nothing is lost by it
	once   bool    // all of them, however long it takes
	units  float64 // what one operation counts for, in the workload's unit
	do     func(ctx context.Context, c *client, i int) error
}

// sample is what one timed section showed.
type sample struct {
	Rate       float64 `json:"rate"` // units a second
	Operations int     `json:"operations"`
	Seconds    float64 `json:"seconds"`
	P50        float64 `json:"p50_ms"` // of one operation
	P99        float64 `json:"p99_ms"`
	Server     usage   `json:"server"`
	Generator  usage   `json:"generator"`
}

// measure runs w with all clients until it is done or the time is up.
func measure(ctx context.Context, clients []*client, w work, limit time.Duration) (sample, error) {
	if w.n == 0 {
		return sample{}, nil
	}
	var (
		next   atomic.Int64
		wg     sync.WaitGroup
		errs   = make([]error, len(clients))
		took   = make([][]time.Duration, len(clients))
		begin  = time.Now()
		finish = make([]time.Time, len(clients))
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for k, c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			now := time.Now()
			for w.once || now.Sub(begin) < limit {
				i := int(next.Add(1) - 1)
				if i >= w.n && !w.repeat {
					break
				}
				if err := w.do(ctx, c, i%w.n); err != nil {
					errs[k] = err
					cancel()
					break
				}
				end := time.Now()
				took[k] = append(took[k], end.Sub(now))
				now = end
			}
			finish[k] = now
		}()
	}
	wg.Wait()
	if err := first(errs); err != nil {
		return sample{}, err
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return sample{}, fmt.Errorf("no operation ended within %s", limit)
	}
	slices.Sort(all)
	s := slices.MaxFunc(finish, time.Time.Compare).Sub(begin).Seconds()
	return sample{
		Rate: float64(len(all)) * w.units / s, Operations: len(all), Seconds: s,
		P50: milliseconds(all[len(all)/2]), P99: milliseconds(all[len(all)*99/100]),
	}, nil
}

// first returns the first error that is not a consequence of another one.
func first(errs []error) error {
	var any error
	for _, err := range errs {
		if err != nil && (any == nil || isCanceled(any)) {
			any = err
		}
	}
	return any
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
