package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

const (
	// windowBytes and windowBlobs bound what one GetMany holds in memory.
	windowBytes = 8 << 20
	windowBlobs = 4096
	// maxGap is the most that is read for nothing to save a request; maxSpan is the most that one request reads.
	maxGap  = 64 << 10
	maxSpan = 4 << 20
)

// GetMany implements cache.BatchGetter: neighbours in a pack are read by one request. A blob over 256 KiB is read by
// itself and held in memory, as the caller asks for.
func (c *Cache) GetMany(ctx context.Context, ds []digest.Digest, each func(i int, data []byte, err error)) error {
	for start := 0; start < len(ds); {
		if err := ctx.Err(); err != nil {
			return err
		}
		end, size := start, int64(0)
		for end < len(ds) && end-start < windowBlobs && (end == start || size+ds[end].Size() <= windowBytes) {
			size += ds[end].Size()
			end++
		}
		w := &window{c: c, ds: ds[start:end]}
		w.data, w.errs = make([][]byte, end-start), make([]error, end-start)
		w.fetch(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		for i := range w.ds {
			each(start+i, w.data[i], w.errs[i])
		}
		start = end
	}
	return nil
}

// window is a part of a GetMany.
type window struct {
	c    *Cache
	ds   []digest.Digest
	data [][]byte
	errs []error
}

// wanted is a blob of the window that is read together with others.
type wanted struct {
	i int
	r record
	n int64 // stored length
}

// fetch reads what is known to be here span by span, and the rest, and all that went wrong, one by one.
func (w *window) fetch(ctx context.Context) {
	want, alone := w.split()
	g := new(errgroup.Group)
	g.SetLimit(atOnce)
	retry := make([][]wanted, 0, len(want))
	for _, span := range spans(want) {
		retry = append(retry, nil)
		failed := &retry[len(retry)-1]
		g.Go(func() error {
			*failed = w.span(ctx, span)
			return nil
		})
	}
	_ = g.Wait() // never fails
	for _, failed := range retry {
		for _, v := range failed {
			alone = append(alone, v.i)
		}
	}
	for _, i := range alone {
		g.Go(func() error {
			w.data[i], w.errs[i] = w.one(ctx, w.ds[i])
			return nil
		})
	}
	_ = g.Wait()
}

// split finds the small blobs that are in the index.
func (w *window) split() (want []wanted, alone []int) {
	x := w.c.s.index
	x.mu.RLock()
	defer x.mu.RUnlock()
	for i, d := range w.ds {
		if d.IsZero() || d.IsEmpty() || d.Size() > maxSmall {
			alone = append(alone, i)
			continue
		}
		p, _ := x.blob(w.c.name, d)
		if p == nil || !x.readable(p) {
			alone = append(alone, i)
			continue
		}
		w.c.s.touchPlace(x, p, w.c.name, kindBlob, d)
		r := record{found{x.packs[p.pack].id, p.offset}, w.c.name, d}
		h := r.header()
		want = append(want, wanted{i, r, h.recordLen()})
	}
	return want, alone
}

// spans groups neighbours.
func spans(want []wanted) [][]wanted {
	slices.SortFunc(want, func(a, b wanted) int {
		return cmp.Or(slices.Compare(a.r.pack[:], b.r.pack[:]), cmp.Compare(a.r.offset, b.r.offset))
	})
	var out [][]wanted
	for len(want) > 0 {
		n, end := 1, int64(want[0].r.offset)+want[0].n
		for n < len(want) && want[n].r.pack == want[0].r.pack {
			at := int64(want[n].r.offset)
			if at > end+maxGap || at+want[n].n > int64(want[0].r.offset)+maxSpan {
				break
			}
			end = max(end, at+want[n].n)
			n++
		}
		out = append(out, want[:n])
		want = want[n:]
	}
	return out
}

// span reads neighbours by one request, and returns those that have to be tried alone.
func (w *window) span(ctx context.Context, span []wanted) (failed []wanted) {
	first, last := span[0], span[len(span)-1]
	start := int64(first.r.offset)
	b, err := w.c.s.readRange(ctx, first.r.pack, start, int64(last.r.offset)+last.n-start)
	if err != nil {
		return span
	}
	for _, v := range span {
		at := int64(v.r.offset) - start
		// The same blob may be asked for twice, and payload writes to its memory.
		data, err := v.r.payload(slices.Clone(b[at : at+v.n]))
		if err != nil {
			failed = append(failed, v)
			continue
		}
		w.data[v.i] = data
	}
	return failed
}

// one reads a blob into memory.
func (w *window) one(ctx context.Context, d digest.Digest) (data []byte, err error) {
	if err := checkDigest(d); err != nil {
		return nil, err
	}
	if d.IsEmpty() {
		return nil, nil
	}
	if d.Size() > maxSmall {
		return cache.ReadBlob(ctx, w.c, d, d.Size())
	}
	err = w.c.read(ctx, d, func(r record) (err error) {
		data, err = w.c.s.readSmall(ctx, r)
		return err
	})
	if err != nil && !errors.Is(err, cache.ErrNotFound) {
		err = fmt.Errorf("get blob %s: %w", d, err)
	}
	return data, err
}
