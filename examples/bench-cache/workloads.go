package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// workload is one row of the table.
type workload struct {
	name, unit string
	budget     float64 // the least ratio to the peer, 0 if none is set
	// setUp stores what is read later. It runs once for each server.
	setUp func(ctx context.Context, t *target) error
	// prepare makes the work of one round, which every server is given alike.
	prepare func(round uint64) func(t *target) work
}

// sizes of the load.
const (
	smallSize  = 1 << 10
	inBatch    = 100
	population = 20_000 // blobs of smallSize that are read
	inFind     = 10_000
	largeSize  = 32 << 20
	verifyOne  = 64 // one answer of so many is checked to the last byte
)

// plan makes the workloads.
type plan struct {
	encoder
	seed    uint64
	share   float64
	budget  int64      // bytes prepared for one round
	larges  int        // large blobs that are read
	longest [2]float64 // between which the longest blob of the mixed load is, in bytes
	small   []blob
}

// The streams of random numbers, by what they are for.
const (
	streamSmall = 1 << 32 * (iota + 1)
	streamLarge
	streamActions
	streamWrites
	streamMixed
)

func newPlan(e encoder, seed uint64, share float64, budget int64) *plan {
	p := &plan{
		encoder: e, seed: seed, share: share, budget: budget, larges: 16, longest: [2]float64{100 << 20, 250 << 20},
	}
	p.small = p.source(streamSmall, 0).blobs(population, smallSize)
	return p
}

func (p *plan) source(stream, round uint64) *source { return newSource(p.seed, stream+round, p.share) }

func (p *plan) workloads() []workload {
	return []workload{
		{"batched small writes", "blobs", 20, nil, p.batchedWrites},
		{"single small writes", "blobs", 2, nil, p.singleWrites},
		{"batched small reads", "blobs", 5, p.storeSmall, p.batchedReads},
		{"single small reads", "blobs", 1.6, p.storeSmall, p.singleReads},
		{"FindMissing of 10,000", "calls", 4, p.storeSmall, p.finds},
		{"ActionCache writes", "results", 5, p.storeSmall, p.actionWrites},
		{"ActionCache reads", "results", 0, p.storeActions, p.actionReads},
		{"large reads", "MiB", 1.5, p.storeLarge, p.largeReads},
		{"large writes", "MiB", 2, nil, p.largeWrites},
		{"mixed, as real caches see it", "calls", 0, p.storeMixed, p.mixed},
	}
}

func (p *plan) storeSmall(ctx context.Context, t *target) error {
	return t.once("small", func() error { return p.store(ctx, t, p.small) })
}

// store uploads blobs of any size.
func (p *plan) store(ctx context.Context, t *target, bs []blob) error {
	batches, large := p.batches(bs)
	_, err := measure(ctx, t.clients, work{n: len(batches), once: true, do: func(ctx context.Context, c *client, i int) error {
		return t.update(ctx, c, p.update(batches[i]), len(batches[i]))
	}}, 0)
	if err != nil {
		return err
	}
	_, err = measure(ctx, t.clients, work{n: len(large), once: true, do: func(ctx context.Context, c *client, i int) error {
		return t.write(ctx, c, p.write(large[i]), large[i].size())
	}}, 0)
	return err
}

// batches sorts blobs as clients do: small ones together, at most 2 MiB and inBatch of them, the others alone.
func (p *plan) batches(bs []blob) (batches [][]blob, large []blob) {
	const most = 2 << 20
	var batch []blob
	var size int64
	for _, b := range bs {
		if b.size() > most/2 {
			large = append(large, b)
			continue
		}
		if len(batch) == inBatch || size+b.size() > most {
			batches, batch, size = append(batches, batch), nil, 0
		}
		batch, size = append(batch, b), size+b.size()
	}
	if len(batch) > 0 {
		batches = append(batches, batch)
	}
	return batches, large
}

func (p *plan) batchedWrites(round uint64) func(*target) work {
	src := p.source(streamWrites, round<<8)
	reqs := make([]*message, p.budget/(inBatch*smallSize))
	for i := range reqs {
		reqs[i] = p.update(src.blobs(inBatch, smallSize))
	}
	return func(t *target) work {
		return work{n: len(reqs), repeat: t.null, units: inBatch, do: func(ctx context.Context, c *client, i int) error {
			return t.update(ctx, c, reqs[i], inBatch)
		}}
	}
}

func (p *plan) singleWrites(round uint64) func(*target) work {
	src := p.source(streamWrites, round<<8+1)
	reqs := make([][]*message, p.budget/(2*smallSize))
	for i := range reqs {
		reqs[i] = p.write(src.blob(smallSize))
	}
	return func(t *target) work {
		return work{n: len(reqs), repeat: t.null, units: 1, do: func(ctx context.Context, c *client, i int) error {
			return t.write(ctx, c, reqs[i], smallSize)
		}}
	}
}

func (p *plan) batchedReads(round uint64) func(*target) work {
	src := p.source(streamSmall, round<<8)
	wanted := make([][]blob, 500)
	reqs := make([]*message, len(wanted))
	for i := range reqs {
		for _, k := range src.rng.Perm(population)[:inBatch] {
			wanted[i] = append(wanted[i], p.small[k])
		}
		reqs[i] = p.readBatch(wanted[i])
	}
	return func(t *target) work {
		return work{n: len(reqs), repeat: true, units: inBatch, do: func(ctx context.Context, c *client, i int) error {
			return t.readBatch(ctx, c, reqs[i], wanted[i], i%verifyOne == 0)
		}}
	}
}

func (p *plan) singleReads(round uint64) func(*target) work {
	reqs := make([]*message, population)
	order := p.source(streamSmall, round<<8+1).rng.Perm(population)
	for i, k := range order {
		reqs[i] = p.read(p.small[k])
	}
	return func(t *target) work {
		return work{n: len(reqs), repeat: true, units: 1, do: func(ctx context.Context, c *client, i int) error {
			return t.read(ctx, c, reqs[i], p.small[order[i]].hash, smallSize, i%verifyOne == 0)
		}}
	}
}

func (p *plan) finds(round uint64) func(*target) work {
	src := p.source(streamSmall, round<<8+2)
	reqs := make([]*message, 16)
	for i := range reqs {
		var bs []blob
		for _, k := range src.rng.Perm(population)[:inFind] {
			bs = append(bs, p.small[k])
		}
		reqs[i] = p.missing(bs)
	}
	return func(t *target) work {
		return work{n: len(reqs), repeat: true, units: 1, do: func(ctx context.Context, c *client, i int) error {
			return t.find(ctx, c, reqs[i], 0)
		}}
	}
}

func (p *plan) actionWrites(round uint64) func(*target) work {
	src := p.source(streamActions, round<<8+1)
	reqs := make([]*message, min(p.budget/(2*smallSize), 150_000))
	for i := range reqs {
		reqs[i] = p.result(src.blob(150), p.small[i%population:][:1])
	}
	return func(t *target) work {
		return work{n: len(reqs), repeat: t.null, units: 1, do: func(ctx context.Context, c *client, i int) error {
			return t.put(ctx, c, reqs[i])
		}}
	}
}

const actions = 5_000 // that are read

func (p *plan) storeActions(ctx context.Context, t *target) error {
	if err := p.storeSmall(ctx, t); err != nil {
		return err
	}
	return t.once("actions", func() error {
		as := p.source(streamActions, 0).blobs(actions, 150)
		_, err := measure(ctx, t.clients, work{n: len(as), once: true, do: func(ctx context.Context, c *client, i int) error {
			return t.put(ctx, c, p.result(as[i], p.small[i:i+2]))
		}}, 0)
		return err
	})
}

func (p *plan) actionReads(uint64) func(*target) work {
	reqs := make([]*message, actions)
	for i, a := range p.source(streamActions, 0).blobs(actions, 150) {
		reqs[i] = p.get(a)
	}
	return func(t *target) work {
		return work{n: len(reqs), repeat: true, units: 1, do: func(ctx context.Context, c *client, i int) error {
			return t.get(ctx, c, reqs[i], codes.OK)
		}}
	}
}

// check turns a call's outcome into an error that says which call it was.
func check(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func isCanceled(err error) bool { return status.Code(err) == codes.Canceled }
