package examples

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/remote"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// acknowledged is what a node said it has stored.
type acknowledged struct {
	mu      sync.Mutex
	blobs   map[digest.Digest][]byte
	actions map[digest.Digest]digest.Digest // Action to output
}

// write stores blobs and ActionResults through c until something fails, and keeps what was acknowledged.
func (a *acknowledged) write(ctx context.Context, c *remote.Cache, seed uint64) {
	for i := uint64(0); ; i++ {
		rng := rand.New(rand.NewPCG(seed, i))
		size := 100 + rng.IntN(30_000)
		if i%20 == 7 {
			size = 300_000 + rng.IntN(900_000)
		}
		b := make([]byte, size)
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		d, err := cache.PutBlob(ctx, c, b)
		if err != nil {
			return
		}
		action := digest.FromBytes([]byte(fmt.Sprint("action", seed, i)))
		err = c.UpdateActionResult(ctx, action, &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: d.Proto()}}})
		a.mu.Lock()
		a.blobs[d] = b
		if err == nil {
			a.actions[action] = d
		}
		a.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// check reads it all through another node.
func (a *acknowledged) check(t *testing.T, c *remote.Cache) {
	var ds []digest.Digest
	for d := range a.blobs {
		ds = append(ds, d)
	}
	missing, err := c.FindMissing(t.Context(), ds)
	require.NoError(t, err)
	require.Empty(t, missing, "of %d", len(ds))
	for d, b := range a.blobs {
		got, err := cache.ReadBlob(t.Context(), c, d, int64(len(b)))
		require.NoError(t, err)
		require.Equal(t, d, digest.FromBytes(got))
	}
	for action, d := range a.actions {
		ar, err := c.GetActionResult(t.Context(), action)
		require.NoError(t, err)
		require.Equal(t, d.Proto().GetHash(), ar.GetOutputFiles()[0].GetDigest().GetHash())
	}
}

// TestKillNode kills a node under load again and again: what it acknowledged, another node has, and no ActionResult names
// what is not there.
func TestKillNode(t *testing.T) {
	rounds := 4
	if os.Getenv("PEXPRESS_SOAK") != "" {
		rounds = 50
	}
	v := s3test.StartVersity(t)
	a, b := newNode(t, v, true), newNode(t, v, true)
	other, err := remote.Dial(t.Context(), "grpc://"+b.grpc)
	require.NoError(t, err)
	defer other.Close()
	blobs, actions := 0, 0
	for round := range rounds {
		c, err := remote.Dial(t.Context(), "grpc://"+a.grpc)
		require.NoError(t, err)
		said := &acknowledged{blobs: map[digest.Digest][]byte{}, actions: map[digest.Digest]digest.Digest{}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for w := range uint64(8) {
			wg.Go(func() { said.write(ctx, c, uint64(round)<<8|w) })
		}
		time.Sleep(200*time.Millisecond + time.Duration(rand.IntN(600))*time.Millisecond)
		a.end(syscall.SIGKILL)
		cancel()
		wg.Wait()
		require.NoError(t, c.Close())
		said.check(t, other)
		blobs, actions = blobs+len(said.blobs), actions+len(said.actions)
		a.start()
	}
	require.Positive(t, actions)
	t.Logf("%d kills: %d blobs and %d ActionResults acknowledged, all there", rounds, blobs, actions)
	_, err = other.GetActionResult(t.Context(), digest.FromBytes([]byte("never stored")))
	require.True(t, errors.Is(err, cache.ErrNotFound), "%v", err)
}
