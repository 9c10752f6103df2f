package s3

import "context"

// Usage returns how many bytes the blobs of each namespace have, as far as this node knows of them. It loads all of the
// index, and looks at every entry.
func (s *Store) Usage(ctx context.Context) (map[string]int64, error) {
	err := s.answer(ctx, question{local: true, ask: func(x *index) (need []int, missing bool) {
		for i := range shardCount {
			if !x.shardReady(i) {
				need = append(need, i)
			}
		}
		return need, false
	}})
	if err != nil {
		return nil, err
	}
	sums := map[string]int64{}
	for i := range shardCount {
		s.index.sum(i, sums)
	}
	return sums, nil
}

// sum adds what the blobs of a shard have. The lock is held for one shard at a time, so that others get on.
func (x *index) sum(shard int, sums map[string]int64) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	byNumber := map[uint32]int64{}
	x.blobs[shard].each(func(k *key, p *place) {
		if _, st := x.best(k, p); st == live {
			byNumber[k.namespace()] += k.blobSize()
		}
	})
	for n, size := range byNumber {
		sums[x.namespaces.all[n]] += size
	}
}
