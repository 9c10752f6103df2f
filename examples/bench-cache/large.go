package main

import "context"

func (p *plan) large() []blob { return p.source(streamLarge, 0).blobs(p.larges, largeSize) }

func (p *plan) storeLarge(ctx context.Context, t *target) error {
	return t.once("large", func() error { return p.store(ctx, t, p.large()) })
}

// mib is what one large blob counts for.
const mib = largeSize >> 20

func (p *plan) largeReads(uint64) func(*target) work {
	reqs := make([]*message, p.larges)
	hashes := make([]string, p.larges)
	for i, b := range p.large() {
		reqs[i], hashes[i] = p.read(b), b.hash
	}
	return func(t *target) work {
		return work{n: p.larges * verifyOne, repeat: true, units: mib, do: func(ctx context.Context, c *client, i int) error {
			return t.read(ctx, c, reqs[i%p.larges], hashes[i%p.larges], largeSize, i%verifyOne == 0)
		}}
	}
}

func (p *plan) largeWrites(round uint64) func(*target) work {
	src := p.source(streamLarge, round<<8+1)
	reqs := make([][]*message, max(p.budget*4/largeSize, int64(p.larges)))
	for i := range reqs {
		reqs[i] = p.write(src.blob(largeSize))
	}
	return func(t *target) work {
		return work{n: len(reqs), repeat: t.null, units: mib, do: func(ctx context.Context, c *client, i int) error {
			return t.write(ctx, c, reqs[i], largeSize)
		}}
	}
}
