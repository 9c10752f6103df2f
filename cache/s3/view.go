package s3

import (
	"maps"
	"slices"
	"time"
)

// update is a manifest that was read, with the files that it names and the node had not read yet.
type update struct {
	manifest *manifest
	meta     Meta
	asked    time.Time // this node's clock before the request
	runs     map[id]*entries
}

// wanted returns the runs of m that must be read before m can be the view: those whose sources are not all here.
func (x *index) wanted(m *manifest) []id {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var want []id
	reset := x.missed(m)
	for i := range m.Runs {
		if r := &m.Runs[i]; reset || !x.has(r) {
			want = append(want, r.ID)
		}
	}
	return want
}

func (x *index) has(r *run) bool {
	_, ok := x.known[r.ID]
	return ok || len(r.Sources) > 0 && x.hasAll(r.Sources)
}

func (x *index) hasAll(sources []id) bool {
	for _, s := range sources {
		if _, ok := x.known[s]; !ok {
			return false
		}
	}
	return true
}

// missed reports whether m no longer lists something that this node has not seen.
func (x *index) missed(m *manifest) bool {
	return x.manifest != nil && x.manifest.Generation < m.Floor
}

// renew says that the manifest has not changed.
func (x *index) renew(asked, date time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.advance(asked, date)
}

func (x *index) advance(asked, date time.Time) {
	if asked.Sub(x.viewAt) > 0 {
		x.viewAt = asked
	}
	if date.After(x.date) {
		x.date = date
	}
}

// apply makes u the view. All happens at once: whoever looks sees the old view or the new one. A node
// that missed too much forgets everything, tails included, which must then be read again.
func (x *index) apply(u *update) {
	x.mu.Lock()
	defer x.mu.Unlock()
	m := u.manifest
	if x.manifest != nil && m.Generation < x.manifest.Generation {
		return // an answer that was overtaken
	}
	if x.missed(m) {
		x.clear()
	}
	old := x.manifest
	if old == nil {
		old = &manifest{Major: m.Major, Shards: m.Shards}
	}
	x.keepShards(old, m)
	gone := x.setDying(m.condemned())
	x.manifest, x.etag, x.modified = m, u.meta.ETag, u.meta.Modified
	x.advance(u.asked, u.meta.Date)
	x.forget(gone, len(m.Rules) != len(old.Rules))
	for i := range m.Runs {
		r := &m.Runs[i]
		if e := u.runs[r.ID]; e != nil {
			x.add(e)
		}
		x.known[r.ID] = x.looks
	}
}

// keepShards decides which shards still need no reading. The new ones hold nothing but the old ones and what was folded.
func (x *index) keepShards(old, m *manifest) {
	if m.Major == old.Major {
		return
	}
	covered := m.Major == old.Major+1 && x.hasAll(m.Folded)
	for i := range x.ready {
		was := x.ready[i] || len(old.Shards) == 0 || old.Shards[i].Entries == 0
		x.ready[i] = covered && was
	}
}

// setDying marks the packs that are condemned, and returns those that no longer are because they were deleted.
func (x *index) setDying(set map[id]bool) (gone map[uint32]bool) {
	gone = map[uint32]bool{}
	if !maps.Equal(x.dying, set) {
		x.epoch++
	}
	for p := range x.dying {
		if n, ok := x.packOf[p]; ok && !set[p] {
			gone[n] = true
		}
	}
	for p := range set {
		if n, ok := x.packOf[p]; ok {
			x.packs[n].condemned = true
		}
	}
	x.dying = set
	return gone
}

// forget drops the records of packs that are gone, and the entries that a new rule voids.
func (x *index) forget(gone map[uint32]bool, rules bool) {
	if len(gone) == 0 && !rules {
		return
	}
	for i := range shardCount {
		if len(gone) > 0 {
			x.blobs[i].drop(func(k *key, p *place) bool { return x.replace(k, p, gone) })
		}
		x.actions[i].drop(func(k *key, a *action) bool { return x.replace(k, &a.place, gone) || x.purged(k, a) })
	}
	for k, spare := range x.spare {
		if spare = slices.DeleteFunc(spare, func(p place) bool { return gone[p.pack] }); len(spare) > 0 {
			x.spare[k] = spare
		} else {
			delete(x.spare, k)
		}
	}
	for p := range x.bad {
		if gone[p.pack] {
			delete(x.bad, p)
		}
	}
	for n := range gone {
		delete(x.packOf, x.packs[n].id)
		x.packs[n] = pack{condemned: true}
		x.free = append(x.free, n)
	}
}

// replace reports whether all records of an entry are gone. If not, p becomes one that is not.
func (x *index) replace(k *key, p *place, gone map[uint32]bool) bool {
	if !gone[p.pack] {
		return false
	}
	spare := x.spare[*k]
	for i, q := range spare {
		if !gone[q.pack] {
			*p = q
			x.spare[*k] = slices.Delete(spare, i, i+1)
			return false
		}
	}
	return true
}

// addTails takes up tails that were listed in the given epoch. If something was forgotten since, they may speak of packs
// that are gone, and alive would look what nobody condemns any more: then nothing is taken up.
func (x *index) addTails(tails map[id]*entries, epoch uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.epoch == epoch {
		x.take(tails)
	}
}

// addOwn takes up a tail that this node has just written.
func (x *index) addOwn(i id, e *entries) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.take(map[id]*entries{i: e})
}

func (x *index) take(tails map[id]*entries) {
	for i, e := range tails {
		if e != nil {
			x.add(e)
		}
		x.known[i] = x.looks
	}
}

// beginLook returns the number of a look at the bucket, and the epoch that it begins in.
func (x *index) beginLook() (look, epoch uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.looks++
	return x.looks, x.epoch
}

// changedSince reports whether something was condemned or forgotten since the epoch.
func (x *index) changedSince(epoch uint64) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.epoch != epoch
}

// unread returns the tails that were listed and are not here.
func (x *index) unread(listed []tail) []tail {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []tail
	for _, t := range listed {
		if _, ok := x.known[t.id]; !ok {
			out = append(out, t)
		}
	}
	return out
}

// prune drops from known what the bucket had no more in the given look. What came later than its listing stays.
func (x *index) prune(look uint64, listed []tail) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.manifest == nil {
		return
	}
	keep := make(map[id]bool, len(listed)+len(x.manifest.Runs))
	for _, t := range listed {
		keep[t.id] = true
	}
	for i := range x.manifest.Runs {
		keep[x.manifest.Runs[i].ID] = true
	}
	for i, n := range x.known {
		if n < look && !keep[i] {
			delete(x.known, i)
		}
	}
}

// addShard takes up shard i, unless the manifest names another one by now.
func (x *index) addShard(i int, want id, e *entries) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.manifest == nil || len(x.manifest.Shards) == 0 || x.manifest.Shards[i].ID != want || x.ready[i] {
		return
	}
	blobs := 0
	for j := range e.all {
		if e.all[j].key.kind() == kindBlob {
			blobs++
		}
	}
	x.blobs[i].reserve(blobs)
	x.actions[i].reserve(len(e.all) - blobs)
	x.add(e)
	x.ready[i] = true
}
