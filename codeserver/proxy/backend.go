package proxy

import (
	"context"
	"fmt"
	"sync"
)

// Backend is one version's listening address, with the connections to it and
// the count of the requests that it is answering.
type Backend struct {
	addr     string
	requests counter
	stats    *Stats

	mu     sync.Mutex
	pool   *pool
	closed bool
}

// NewMeasured names the version that listens on addr (host:port) and speaks
// HTTP/1.1, or HTTP/2 by prior knowledge, without TLS, and where requests to it
// are counted. It does not connect.
func NewMeasured(addr string, stats *Stats) *Backend {
	return &Backend{addr: addr, pool: newPool(addr), stats: stats}
}

// InFlight is the number of requests that began on b and have not ended. An
// upgraded connection is a request that ends when the connection does.
func (b *Backend) InFlight() int { return b.requests.value() }

// acquire counts a request in and returns the connections it goes through. Each
// acquire needs one release.
func (b *Backend) acquire() *pool {
	b.stats.begin()
	return b.join()
}

// join is acquire for a request that no client has made.
func (b *Backend) join() *pool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests.inc()
	return b.pool
}

func (b *Backend) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

func (b *Backend) release() { b.requests.dec() }

// Drain waits for the last request on b to end, then closes the idle
// connections to it. The caller has pointed every Switch elsewhere, so no
// request begins meanwhile; if one does, Drain waits for that one too. It fails
// only with ctx's error.
func (b *Backend) Drain(ctx context.Context) error {
	for {
		if err := b.requests.wait(ctx); err != nil {
			return fmt.Errorf("drain %s: %d requests still in flight: %w", b.addr, b.InFlight(), err)
		}
		if old, ok := b.retire(); ok {
			old.close()
			return nil
		}
	}
}

// retire swaps the pool for a fresh one if nothing is in flight. Closing the
// whole pool, rather than what its transports call idle, is exact: a transport
// marks a connection idle a moment after the request ended. The fresh pool
// serves the requests of a roll-back to b.
func (b *Backend) retire() (*pool, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.requests.value() > 0 {
		return nil, false
	}
	old := b.pool
	if !b.closed {
		b.pool = newPool(b.addr)
	}
	return old, true
}

// Close ends all connections to b. Clients of requests in flight see them
// aborted, and further requests to b fail. It always returns nil.
func (b *Backend) Close() error {
	b.mu.Lock()
	b.closed = true
	p := b.pool
	b.mu.Unlock()
	p.close()
	return nil
}
