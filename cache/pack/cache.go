package pack

import "github.com/pexpress/pexpress/cache"

// Cache is one namespace of a store: what is in one is not in another, whatever its digest.
type Cache struct {
	s  *Store
	ns uint16
}

var (
	_ cache.CAS         = (*Cache)(nil)
	_ cache.ActionCache = (*Cache)(nil)
	_ cache.BatchPutter = (*Cache)(nil)
	_ cache.BatchGetter = (*Cache)(nil)
	_ cache.RangeGetter = (*Cache)(nil)
	_ cache.ZstdGetter  = (*Cache)(nil)
)

// Bytes returns the size of what the namespace holds, each blob counted by its own size.
func (c *Cache) Bytes() int64 {
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	if int(c.ns) >= len(c.s.bytes) {
		return 0 // nothing was ever written to it
	}
	return c.s.bytes[c.ns]
}
