package server

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
)

// slow is a CAS whose Put takes as many bytes as it is told to, and says when it has.
type slow struct {
	*memory.Store
	next chan int
	took chan struct{}
}

func (s slow) Put(ctx context.Context, _ digest.Digest, r io.Reader) error {
	for {
		select {
		case n := <-s.next:
			if _, err := io.ReadFull(r, make([]byte, n)); err != nil {
				return err
			}
			s.took <- struct{}{}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestOvertakenStreamIsCounted: what an old stream still brings to an upload that is idle counts, and goes with it.
func TestOvertakenStreamIsCounted(t *testing.T) {
	us := newUploads(Kept{Uploads: 10, Bytes: 1000, For: time.Hour})
	defer us.close()
	cas := slow{memory.New(), make(chan int), make(chan struct{})}
	key, d := uploadKey{"me", "name"}, digest.SHA256.FromSum([32]byte{1}, 100)
	u, err := us.begin(t.Context(), cas, key, d)
	require.NoError(t, err)
	wrote := make(chan error)
	go func() { wrote <- us.write(t.Context(), u, 0, 0, make([]byte, 10)) }()
	cas.next <- 4
	<-cas.took // the old stream is inside of write
	_, number, ok := us.resume(key, d)
	require.True(t, ok)
	us.leave(u, number)
	cas.next <- 6
	<-cas.took
	require.NoError(t, <-wrote)
	counted := func() int64 {
		us.mu.Lock()
		defer us.mu.Unlock()
		return us.bytes
	}
	require.Equal(t, int64(10), counted())
	_, _, ok = us.resume(key, d)
	require.True(t, ok)
	require.Zero(t, counted(), "nothing is idle")
}

// TestUploadsUnderRace begins, resumes, leaves, expires and drops at once: in the end nothing is counted.
func TestUploadsUnderRace(t *testing.T) {
	us := newUploads(Kept{Uploads: 3, Bytes: 300, For: time.Microsecond})
	store := memory.New()
	d := digest.SHA256.FromSum([32]byte{1}, 1000)
	keys := []uploadKey{{"a", "1"}, {"a", "2"}, {"b", "1"}, {"b", "2"}, {"c", "1"}}
	var all sync.WaitGroup
	for seed := range uint64(8) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				key := keys[r.IntN(len(keys))]
				u, number, ok := us.resume(key, d)
				if !ok {
					var err error
					if u, err = us.begin(ctx, store, key, d); err != nil {
						t.Error(err)
					}
				}
				if r.IntN(4) == 0 {
					go cancel()
				}
				_ = us.write(ctx, u, number, us.offset(key, d), make([]byte, r.IntN(50))) // a stream may be overtaken at any time
				if r.IntN(5) == 0 {
					us.drop(u)
				}
				us.leave(u, number)
				cancel()
			}
		})
	}
	all.Wait()
	us.close()
	us.mu.Lock()
	defer us.mu.Unlock()
	require.Empty(t, us.all)
	require.Empty(t, us.idle)
	require.Zero(t, us.bytes)
}
