package s3

import (
	"fmt"
	"time"

	"github.com/pexpress/pexpress/cache/digest"
)

// ShardsFrom has the index cut into shards from n entries on, so that small tests see them.
func ShardsFrom(o Options, n int64) Options {
	o.shardsFrom = n
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
