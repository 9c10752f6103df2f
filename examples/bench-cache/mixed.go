package main

import (
	"context"

	"google.golang.org/grpc/codes"
)

// build is an Action and what it made.
type build struct {
	action  blob
	outputs []blob
}

// builds returns Actions whose outputs come to about total bytes, and one whose output is a blob of the longest kind.
func (p *plan) builds(src *source, total int64) []build {
	var bs []build
	for total > 0 {
		b := build{action: src.blob(150)}
		for range 1 + src.rng.IntN(11) {
			o := src.blob(src.realistic())
			b.outputs, total = append(b.outputs, o), total-o.size()
		}
		bs = append(bs, b)
	}
	return append(bs, build{src.blob(150), []blob{src.blob(src.between(p.longest[0], p.longest[1]))}})
}

func (p *plan) known() []build { return p.builds(p.source(streamMixed, 0), p.budget) }

func (p *plan) storeMixed(ctx context.Context, t *target) error {
	return t.once("mixed", func() error {
		known := p.known()
		var all []blob
		for _, b := range known {
			all = append(all, b.outputs...)
		}
		if err := p.store(ctx, t, all); err != nil {
			return err
		}
		_, err := measure(ctx, t.clients, work{n: len(known), once: true, do: func(ctx context.Context, c *client, i int) error {
			return t.put(ctx, c, p.result(known[i].action, known[i].outputs))
		}}, 0)
		return err
	})
}

// step is what one client does in one go: the calls about one Action.
type step []func(ctx context.Context, t *target, c *client) error

// hit is a build that another one has made: its result and its outputs are read.
func (p *plan) hit(b build, verify bool) step {
	get := p.get(b.action)
	s := step{func(ctx context.Context, t *target, c *client) error { return t.get(ctx, c, get, codes.OK) }}
	batches, large := p.batches(b.outputs)
	for _, batch := range batches {
		req := p.readBatch(batch)
		s = append(s, func(ctx context.Context, t *target, c *client) error { return t.readBatch(ctx, c, req, batch, verify) })
	}
	for _, o := range large {
		req := p.read(o)
		s = append(s, func(ctx context.Context, t *target, c *client) error {
			return t.read(ctx, c, req, o.hash, o.size(), verify)
		})
	}
	return s
}

// miss is a build that is new: nothing of it is there, all of it is stored.
func (p *plan) miss(b build) step {
	get, missing, result := p.get(b.action), p.missing(b.outputs), p.result(b.action, b.outputs)
	s := step{
		func(ctx context.Context, t *target, c *client) error { return t.get(ctx, c, get, codes.NotFound) },
		func(ctx context.Context, t *target, c *client) error { return t.find(ctx, c, missing, len(b.outputs)) },
	}
	batches, large := p.batches(b.outputs)
	for _, batch := range batches {
		req := p.update(batch)
		s = append(s, func(ctx context.Context, t *target, c *client) error { return t.update(ctx, c, req, len(batch)) })
	}
	for _, o := range large {
		reqs := p.write(o)
		s = append(s, func(ctx context.Context, t *target, c *client) error { return t.write(ctx, c, reqs, o.size()) })
	}
	return append(s, func(ctx context.Context, t *target, c *client) error { return t.put(ctx, c, result) })
}

// mixed is one fixed script: of four builds three are hits, and now and then a client asks for a thousand digests.
func (p *plan) mixed(round uint64) func(*target) work {
	src := p.source(streamMixed, round<<8+1)
	known := p.known()
	var asked []blob
	for _, b := range known {
		asked = append(asked, b.outputs...)
	}
	find := p.missing(asked[:min(1000, len(asked))])
	var script []step
	for i, b := range p.builds(src, p.budget/2) {
		for range 3 {
			script = append(script, p.hit(known[src.rng.IntN(len(known)-1)], i%verifyOne == 0))
		}
		if i%4 == 0 {
			script = append(script, step{func(ctx context.Context, t *target, c *client) error { return t.find(ctx, c, find, 0) }})
		}
		script = append(script, p.miss(b))
	}
	script = append(script, p.hit(known[len(known)-1], false))
	src.rng.Shuffle(len(script), func(i, j int) { script[i], script[j] = script[j], script[i] })
	calls := 0
	for _, s := range script {
		calls += len(s)
	}
	return func(t *target) work {
		return work{n: len(script), once: true, units: float64(calls) / float64(len(script)), do: func(ctx context.Context, c *client, i int) error {
			for _, call := range script[i] {
				if err := call(ctx, t, c); err != nil {
					return err
				}
			}
			return nil
		}}
	}
}
