package s3

import (
	"context"
	"fmt"
	"time"
)

// write is the commit: the pack, then its tail, then the index of this node.
func (s *Store) write(ctx context.Context, b *batch) error {
	if err := s.probeCommit(ctx); err != nil {
		return err
	}
	began := s.now()
	i := newID()
	meta, err := s.bucket.Put(ctx, packDir+i.String(), b.pack)
	if err != nil {
		return fmt.Errorf("write a pack of %d records: %w", len(b.items), err)
	}
	return s.writeTail(ctx, packRef{i, int64(len(b.pack)), meta.Date.Unix()}, b.items, began)
}

// writeTail makes records of a pack part of the log. Its own clock tells the writer early, S3's dates tell everyone
// surely, that a commit took so long that its pack may be swept.
func (s *Store) writeTail(ctx context.Context, p packRef, items []committed, began time.Time) error {
	if p.date <= 0 {
		return fmt.Errorf("pack %s: the bucket's answers carry no Date", p.id)
	}
	e := tailOf(p, items, secondsOf(s.now()))
	sent := s.now()
	meta, err := s.bucket.Put(ctx, tailDir+p.id.String(), e.encode())
	if err != nil {
		return fmt.Errorf("write the tail of pack %s: %w", p.id, err)
	}
	if took := max(meta.Date.Sub(time.Unix(p.date, 0)), since(s.now(), began)); took > s.o.commitLimit/2 {
		return fmt.Errorf("pack %s: the commit took %s and may not count: send the blobs again", p.id, took.Round(time.Second))
	}
	if took := since(s.now(), sent); took > maxAnswer {
		return fmt.Errorf("pack %s: the answer to its tail took %s, gc may have been there since: send the blobs again", p.id, took.Round(time.Second))
	}
	s.index.addOwn(p.id, e)
	s.wakeCompaction(int(s.count.tails.Add(1)))
	return nil
}

// maxAnswer is how old what an acknowledgement rests on may be. Deletion waits for Slack beyond the promise, so what is
// this old still leaves time for the answer to reach its client.
const maxAnswer = Slack / 2

// since returns how much later now is, by the clock that says more.
func since(now, then time.Time) time.Duration {
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

// tailOf returns the index of one pack. Items without a time of use of their own were used at the given one.
func tailOf(p packRef, items []committed, used uint32) *entries {
	e := &entries{packs: []packRef{p}, all: make([]entry, 0, len(items))}
	spaces, principals := names{of: map[string]uint32{}}, names{of: map[string]uint32{}}
	for i := range items {
		it := &items[i]
		en := entry{
			key:    makeKey(spaces.number(it.header.namespace), it.header.kind, it.header.digest),
			offset: it.offset, used: used,
		}
		if it.used > 0 {
			en.used = it.used
		}
		if it.pointer != nil {
			en.target = target{it.pointer.result, it.pointer.time, principals.number(it.pointer.principal)}
		}
		e.all = append(e.all, en)
	}
	e.namespaces, e.principals = spaces.all, principals.all
	return e
}
