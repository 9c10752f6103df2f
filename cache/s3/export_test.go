package s3

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
)

// ShardsFrom has the index cut into shards from n entries on, so that small tests see them.
func ShardsFrom(o Options, n int64) Options {
	o.shardsFrom = n
	return o
}

// LongestCommit is how long after its pack a tail may be written.
const LongestCommit = longestCommit

// CommitLimit has tails count that are written up to d after their packs. All nodes of a bucket have to have the same.
func CommitLimit(o Options, d time.Duration) Options {
	o.commitLimit = d
	return o
}

// Impatient has requests tried again at once.
func Impatient(o Options) Options {
	o.backoff = time.Millisecond
	return o
}

// Explain says what the index of a node holds of a blob.
func Explain(c *Cache, d digest.Digest) string {
	x := c.s.index
	x.mu.RLock()
	defer x.mu.RUnlock()
	k := makeKey(x.namespaces.of[c.name], kindBlob, d)
	out := fmt.Sprintf("view of generation %d, %v old, shard ready %v;", x.manifest.Generation, x.age(c.s.now()), x.shardReady(k.shard()))
	say := func(what string, p place) {
		n := x.packs[p.pack]
		out += fmt.Sprintf(" %s: pack %d %s at %d, condemned %v (listed %v), lost %v;", what, p.pack, n.id, p.offset, n.condemned, x.dying[n.id], n.lost)
	}
	if p := x.blobs[k.shard()].get(&k); p != nil {
		say("record", *p)
	}
	for _, p := range x.spare[k] {
		say("spare", p)
	}
	return out
}

// FlushTouches writes the uses that were noted.
func FlushTouches(ctx context.Context, s *Store) error { return s.flushTouches(ctx) }

// Touches returns how many uses wait to be written.
func Touches(s *Store) int {
	s.touches.mu.Lock()
	defer s.touches.mu.Unlock()
	return len(s.touches.all)
}

// FillIndex folds the tails of the bucket together with n made-up blobs and actions into its index, as compaction does.
// There are no packs behind what is made up.
func FillIndex(ctx context.Context, s *Store, namespace string, n int) error {
	src, err := s.readSource(ctx)
	if err != nil {
		return err
	}
	f := newFold()
	for _, e := range src.tails {
		f.add(e)
	}
	const perPack = 5000
	for at := 0; at < n; at += perPack {
		items := make([]committed, perPack)
		for i := range items {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], uint64(at+i))
			d := digest.FromBytes(b[:])
			items[i] = committed{header: header{kindBlob, namespace, d, 8}, offset: uint32(i * 100)}
			if i%10 == 0 {
				items[i].header.kind, items[i].pointer = kindAction, &pointer{result: d, time: int64(i), principal: "ci"}
			}
		}
		f.add(tailOf(packRef{newID(), 1 << 20, s.now().Unix()}, items, secondsOf(s.now())))
	}
	m := next(src.manifest, src.modified)
	if err := s.writeAll(ctx, src, m, f, folding{}); err != nil {
		return err
	}
	if err := s.swapManifest(ctx, m, src.etag); err != nil {
		return err
	}
	return s.deleteTails(ctx, src)
}
