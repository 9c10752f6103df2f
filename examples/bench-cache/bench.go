package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench measures what the options ask for and reports it.
func bench(ctx context.Context, o options, stdout io.Writer) error {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f := &fleet{dir: dir}
	defer f.stop()
	if o.target != "" {
		f.targets = []*target{{name: o.target, address: strings.TrimPrefix(o.target, "grpc://")}}
	} else if err := f.startAll(ctx, o); err != nil {
		return err
	}
	for _, t := range f.targets {
		if err := t.connect(o.clients, max(1, min(o.clients, o.connections))); err != nil {
			return err
		}
	}
	r := newReport(o, f.targets)
	plan := newPlan(encoder{o.instance, o.chunk}, o.seed, o.compressible, o.prepare<<20)
	for _, w := range plan.workloads() {
		if !only.MatchString(w.name) {
			continue
		}
		row, err := runWorkload(ctx, o, w, f.targets)
		if err != nil {
			return err
		}
		r.add(w, row)
		fmt.Fprint(os.Stderr, r.line(len(r.Rows)-1))
	}
	if o.json != "" {
		if err := r.save(o.json); err != nil {
			return err
		}
	}
	return r.write(stdout)
}

// runWorkload returns the samples of each target. The targets take turns, and who begins changes with the rounds.
func runWorkload(ctx context.Context, o options, w workload, targets []*target) (map[string][]sample, error) {
	for _, t := range targets {
		if w.setUp == nil {
			break
		}
		if err := w.setUp(ctx, t); err != nil {
			return nil, fmt.Errorf("%s: set up %s: %w", w.name, t.name, err)
		}
	}
	samples := map[string][]sample{}
	for round := range o.rounds + 1 {
		load := w.prepare(uint64(round + 1))
		for i := range targets {
			t := targets[(i+round)%len(targets)]
			s, err := one(ctx, o, t, load(t))
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", w.name, t.name, err)
			}
			if round > 0 { // the first fills caches and grows heaps
				samples[t.name] = append(samples[t.name], s)
			}
		}
	}
	return samples, nil
}

// one measures one server once, and what it and this program used.
func one(ctx context.Context, o options, t *target, w work) (sample, error) {
	runtime.GC()
	syscall.Sync() // what others left unwritten is not this server's to wait for
	var before usage
	if t.pid != 0 {
		forgetPeak(t.pid)
		before, _ = look(t.pid)
	}
	own, err := look(os.Getpid())
	if err != nil {
		return sample{}, err
	}
	s, err := measure(ctx, t.clients, w, time.Duration(o.seconds*float64(time.Second)))
	if err != nil {
		return s, err
	}
	if t.pid != 0 {
		after, err := look(t.pid)
		if err != nil {
			return s, err
		}
		s.Server = after.minus(before)
	}
	after, err := look(os.Getpid())
	s.Generator = after.minus(own)
	return s, err
}

// median returns the sample whose rate is the middle one.
func median(ss []sample) sample {
	ss = slices.Clone(ss)
	slices.SortFunc(ss, func(a, b sample) int {
		if a.Rate < b.Rate {
			return -1
		}
		return 1
	})
	return ss[len(ss)/2]
}
