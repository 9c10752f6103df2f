package s3

// ShardsFrom has the index cut into shards from n entries on, so that small tests see them.
func ShardsFrom(o Options, n int64) Options {
	o.shardsFrom = n
	return o
}
