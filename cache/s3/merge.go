package s3

// add takes up the entries of a file. It is the one way in for them.
func (x *index) add(e *entries) {
	packs := make([]uint32, len(e.packs))
	for i := range e.packs {
		packs[i] = x.pack(&e.packs[i])
	}
	namespaces := make([]uint32, len(e.namespaces))
	for i, s := range e.namespaces {
		namespaces[i] = x.namespaces.number(s)
	}
	principals := make([]uint32, len(e.principals))
	for i, s := range e.principals {
		principals[i] = x.principals.number(s)
	}
	for i := range e.all {
		en := &e.all[i]
		k := en.key
		k.meta = namespaces[k.namespace()]<<8 | k.meta&0xff
		p := place{packs[en.pack], en.offset, en.used}
		if k.kind() == kindBlob {
			x.addBlob(&k, p)
			continue
		}
		t := en.target
		t.principal = principals[t.principal]
		x.addAction(&k, makeAction(p, &t))
	}
}

// pack returns the number of a pack.
func (x *index) pack(r *packRef) uint32 {
	if n, ok := x.packOf[r.id]; ok {
		return n
	}
	p := pack{packRef: *r, condemned: x.dying[r.id]}
	if n := len(x.free); n > 0 {
		i := x.free[n-1]
		x.free, x.packs[i], x.packOf[r.id] = x.free[:n-1], p, i
		return i
	}
	x.packs = append(x.packs, p)
	n := uint32(len(x.packs) - 1)
	x.packOf[r.id] = n
	return n
}

// better reports whether a record at p is to be read rather than one at q: it is usable, or else it is the newer one.
// The date is S3's, so that nodes agree.
func (x *index) better(p, q place) bool {
	if a, b := x.usable(&p), x.usable(&q); a != b {
		return a
	}
	return newer(&x.packs[p.pack].packRef, &x.packs[q.pack].packRef)
}

func newer(a, b *packRef) bool {
	if a.date != b.date {
		return a.date > b.date
	}
	return string(a.id[:]) > string(b.id[:])
}

func (x *index) addBlob(k *key, p place) {
	old, fresh := x.blobs[k.shard()].put(k)
	if fresh {
		*old = p
		return
	}
	x.merge(k, old, p)
}

// merge keeps the better one of two records of an entry, and the other one as a spare.
func (x *index) merge(k *key, old *place, p place) {
	if old.pack == p.pack && old.offset == p.offset {
		old.used = max(old.used, p.used)
		return
	}
	if x.better(p, *old) {
		*old, p = p, *old
	}
	spare := x.spare[*k]
	for i := range spare {
		if spare[i].pack == p.pack && spare[i].offset == p.offset {
			return
		}
	}
	x.spare[*k] = append(spare, p)
}

// addAction keeps the pointer that was written last, whether or not its pack is condemned: an older one must not come
// back in its place.
func (x *index) addAction(k *key, a action) {
	if x.purged(k, &a) {
		return
	}
	old, fresh := x.actions[k.shard()].put(k)
	switch {
	case fresh || join(a.time) > join(old.time):
		*old = a
		delete(x.spare, *k)
	case join(a.time) == join(old.time) && a.sum == old.sum:
		x.merge(k, &old.place, a.place)
	case join(a.time) == join(old.time) && string(a.sum[:]) > string(old.sum[:]):
		*old = a
		delete(x.spare, *k)
	}
}

func (x *index) purged(k *key, a *action) bool {
	if x.manifest == nil {
		return false
	}
	for i := range x.manifest.Rules {
		if x.manifest.Rules[i].match(x.namespaces.all[k.namespace()], x.principals.all[a.principal], join(a.time)) {
			return true
		}
	}
	return false
}
