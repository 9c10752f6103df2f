package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache/digest"
)

// reported bounds the lists in reports.
const reported = 1000

// Scrub reads every pack and checks every record against its digest. Packs with a bad one are condemned after the good
// records were copied out of them, so that the bad ones read as missing and are uploaded again.
func (s *Store) Scrub(ctx context.Context) (ScrubReport, error) {
	if err := s.loadAll(ctx); err != nil {
		return ScrubReport{}, fmt.Errorf("scrub: %w", err)
	}
	sc := &scrubber{s: s}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(foldsAtOnce)
	for _, p := range s.index.livePacks() {
		g.Go(func() error { return sc.pack(gctx, p) })
	}
	if err := g.Wait(); err != nil {
		return sc.report, fmt.Errorf("scrub: %w", err)
	}
	sc.report.BadPacks = len(sc.bad)
	if err := sc.heal(ctx); err != nil {
		return sc.report, fmt.Errorf("scrub: set damaged packs aside: %w", err)
	}
	return sc.report, nil
}

// livePacks returns the packs that are known and not condemned.
func (x *index) livePacks() []packRef {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []packRef
	for _, n := range x.packOf {
		if !x.packs[n].condemned {
			out = append(out, x.packs[n].packRef)
		}
	}
	return out
}

// places returns where the index has records in the given packs.
func (x *index) places(packs []packRef) map[id][]uint32 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	in := map[uint32]id{}
	for _, p := range packs {
		if n, ok := x.packOf[p.id]; ok {
			in[n] = p.id
		}
	}
	at := map[id][]uint32{}
	note := func(p place) {
		if i, ok := in[p.pack]; ok {
			at[i] = append(at[i], p.offset)
		}
	}
	for i := range shardCount {
		x.blobs[i].each(func(_ *key, p *place) { note(*p) })
		x.actions[i].each(func(_ *key, a *action) { note(a.place) })
	}
	for _, spare := range x.spare {
		for _, p := range spare {
			note(p)
		}
	}
	for i := range at {
		slices.Sort(at[i])
	}
	return at
}

// scrubber collects what Scrub finds.
type scrubber struct {
	s      *Store
	mu     sync.Mutex
	report ScrubReport
	bad    []packRef
}

// pack reads one pack. Only a failure to read is an error.
func (sc *scrubber) pack(ctx context.Context, p packRef) error {
	var found []string
	var records int64
	var large *header
	_, size, err := sc.s.scan(ctx, p.id, nil, func(r scanned, err error) {
		records++
		if err != nil {
			found = append(found, fmt.Sprintf("%s in pack %s at %d: %v", r.header.digest, p.id, r.offset, err))
		}
		if err == nil && r.payload == nil {
			large = &r.header
		}
	})
	if err == nil && large != nil {
		err = sc.large(ctx, p, large)
	}
	switch {
	case errors.Is(err, ErrNoObject):
		found = append(found, fmt.Sprintf("pack %s is gone", p.id))
	case errors.Is(err, errFormat), errors.Is(err, digest.ErrMismatch):
		found = append(found, fmt.Sprintf("pack %s: %v", p.id, err))
	case err != nil:
		return fmt.Errorf("pack %s: %w", p.id, err)
	case size != p.size:
		found = append(found, fmt.Sprintf("pack %s has %d bytes and the index says %d", p.id, size, p.size))
	}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.report.Packs++
	sc.report.Records += records
	sc.report.Bytes += size
	if len(found) > 0 {
		sc.bad = append(sc.bad, p)
		sc.report.BadRecords += int64(len(found))
		sc.report.Bad = append(sc.report.Bad, found[:min(len(found), reported-min(reported, len(sc.report.Bad)))]...)
	}
	return nil
}

func (sc *scrubber) large(ctx context.Context, p packRef, h *header) error {
	rc, err := sc.s.openLarge(ctx, record{found{p.id, 0}, h.namespace, h.digest}, 0)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = io.Copy(io.Discard, rc)
	return err
}

// heal copies the good records out of damaged packs and condemns these.
func (sc *scrubber) heal(ctx context.Context) error {
	if len(sc.bad) == 0 || sc.s.o.ReadOnly {
		return nil
	}
	d, known := dying{}, sc.s.index.places(sc.bad)
	for _, p := range sc.bad {
		n, err := sc.s.copyOut(ctx, p.id, known[p.id], func(r *scanned) (uint32, bool) { return 0, r.payload != nil })
		if err != nil && !errors.Is(err, ErrNoObject) {
			return fmt.Errorf("copy what is good out of pack %s: %w", p.id, err)
		}
		sc.report.Rescued += n
		d.Packs = append(d.Packs, p.id)
		d.Bytes += p.size
	}
	return sc.s.edit(ctx, func(m *manifest) (bool, error) {
		d.Generation = m.Generation
		m.Dying = append(m.Dying, d)
		return true, nil
	})
}

// Verify compares the index with a listing of the objects. It writes nothing.
func (s *Store) Verify(ctx context.Context) (VerifyReport, error) {
	listed, err := s.listPacks(ctx)
	if err == nil {
		err = s.loadAll(ctx)
	}
	if err != nil {
		return VerifyReport{}, fmt.Errorf("verify: %w", err)
	}
	later, err := s.listPacks(ctx) // what was committed meanwhile
	if err != nil {
		return VerifyReport{}, fmt.Errorf("verify: %w", err)
	}
	var r VerifyReport
	x := s.index
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, r.Entries = x.memory()
	r.Packs = len(x.packOf)
	for i, n := range x.packOf {
		o, ok := later[i]
		switch {
		case !ok && len(r.Missing) < reported:
			r.Missing = append(r.Missing, packDir+i.String())
		case ok && o.Size != x.packs[n].size && len(r.WrongLen) < reported:
			r.WrongLen = append(r.WrongLen, packDir+i.String())
		}
	}
	for i, o := range listed {
		if _, ok := x.packOf[i]; !ok {
			r.Strays++
			r.StrayLen += o.Size
		}
	}
	return r, nil
}
