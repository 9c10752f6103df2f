package s3_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// interrupted is a bucket for one node that lets something else happen between two of its requests.
type interrupted struct {
	*s3test.Sim
	before, after func(what string)
}

func (b *interrupted) do(what string, request func()) {
	if b.before != nil {
		b.before(what)
	}
	request()
	if b.after != nil {
		b.after(what)
	}
}

// once has f done when a request begins with the given words for the nth time.
func once(n int, what string, f func()) func(string) {
	return func(is string) {
		if len(is) >= len(what) && is[:len(what)] == what {
			if n--; n == 0 {
				f()
			}
		}
	}
}

// Put implements s3.Bucket.
func (b *interrupted) Put(ctx context.Context, key string, body []byte) (m s3.Meta, err error) {
	b.do("put "+key, func() { m, err = b.Sim.Put(ctx, key, body) })
	return m, err
}

// Get implements s3.Bucket.
func (b *interrupted) Get(ctx context.Context, key string, o s3.GetOptions) (obj *s3.Object, err error) {
	b.do("get "+key, func() { obj, err = b.Sim.Get(ctx, key, o) })
	return obj, err
}

// List implements s3.Bucket.
func (b *interrupted) List(ctx context.Context, prefix, after string) (p s3.Page, err error) {
	b.do("list "+prefix, func() { p, err = b.Sim.List(ctx, prefix, after) })
	return p, err
}

// Swap implements s3.Bucket.
func (b *interrupted) Swap(ctx context.Context, key string, body []byte, etag string) (m s3.Meta, err error) {
	b.do("swap "+key, func() { m, err = b.Sim.Swap(ctx, key, body, etag) })
	return m, err
}

// scene is a bucket with one pack in it, of which one blob matters, and two nodes: one may be interrupted, the other one is the world meanwhile.
type scene struct {
	t     *testing.T
	sim   *s3test.Sim
	b     *interrupted
	node  *s3.Store
	other *s3.Store
	blob  cache.Blob
}

const grace = s3.Freshness + s3.DefaultRetention + s3.Slack

func inScene(t *testing.T, retention time.Duration, play func(*testing.T, *scene)) {
	synctest.Test(t, func(t *testing.T) {
		sim := s3test.NewSim(time.Now)
		s := &scene{t: t, sim: sim, b: &interrupted{Sim: sim}, blob: blobs(60, 4, 1000)[0]}
		o := s3.Options{Manual: true, Retention: retention}
		s.node, s.other = open(t, s.b, o), open(t, sim, o)
		require.NoError(t, s.node.AddRoot(t.Context(), "main", "none", nil)) // the probe is done
		writer := open(t, sim, o)
		require.NoError(t, writer.Namespace("main").PutMany(t.Context(), blobs(60, 4, 1000)))
		play(t, s)
	})
}

func (s *scene) gc(n *s3.Store, o s3.GCOptions) {
	_, err := n.GC(s.t.Context(), o)
	require.NoError(s.t, err)
}

func (s *scene) ds() []digest.Digest { return []digest.Digest{s.blob.Digest} }

// present asks a node for the blob, and reads it if it is said to be there.
func (s *scene) present(n *s3.Store) bool {
	s.t.Helper()
	missing, err := n.Namespace("main").FindMissing(s.t.Context(), s.ds())
	require.NoError(s.t, err)
	if len(missing) > 0 {
		return false
	}
	_, err = cache.ReadBlob(s.t.Context(), n.Namespace("main"), s.blob.Digest, 1<<20)
	require.NoError(s.t, err, "it was said to be present")
	return true
}

// takeTail removes the blob's tail, and returns what writes it again.
func (s *scene) takeTail() (again func()) {
	key := s.sim.Keys("tail/")[0]
	var tail []byte
	s.sim.Alter(key, func(b []byte) []byte {
		tail = b
		return nil
	})
	return func() {
		_, err := s.sim.Put(s.t.Context(), key, tail)
		require.NoError(s.t, err)
	}
}

// TestTailTooLate: a tail that comes when its pack may be swept counts for nobody, whatever is promised later.
func TestTailTooLate(t *testing.T) {
	inScene(t, 0, func(t *testing.T, s *scene) {
		again := s.takeTail()
		time.Sleep(2*s3.LongestCommit + time.Minute)
		s.gc(s.other, s3.GCOptions{})
		require.Empty(t, s.sim.Keys("pack/"))
		again()
		require.False(t, s.present(s.node))
		generous := open(t, s.sim, s3.Options{Manual: true, Retention: 24 * time.Hour})
		require.False(t, s.present(generous))
		s.gc(generous, s3.GCOptions{})
		require.NoError(t, s.other.Refresh(t.Context()))
		require.False(t, s.present(s.other))
		require.False(t, s.present(open(t, s.sim, s3.Options{Manual: true})))
	})
}

// TestTailReadLongAgo: a node reads a tail, and takes it up when its pack was condemned and deleted meanwhile.
func TestTailReadLongAgo(t *testing.T) {
	inScene(t, 0, func(t *testing.T, s *scene) {
		meets := false
		s.b.after = once(1, "get tail/", func() {
			meets = true
			s.gc(s.other, s3.GCOptions{MaxBytes: 1})
			_, err := s.node.Roots(t.Context()) // reads the manifest
			require.NoError(t, err)
			time.Sleep(grace + time.Minute)
			s.gc(s.other, s3.GCOptions{})
			require.Empty(t, s.sim.Keys("pack/"))
			_, err = s.node.Roots(t.Context())
			require.NoError(t, err)
		})
		require.False(t, s.present(s.node))
		require.True(t, meets)
	})
}

// TestNodeThatMissedIt: a node sees neither that a pack is condemned nor any manifest until it is deleted.
func TestNodeThatMissedIt(t *testing.T) {
	inScene(t, 0, func(t *testing.T, s *scene) {
		require.True(t, s.present(s.node))
		s.gc(s.other, s3.GCOptions{MaxBytes: 1})
		time.Sleep(grace + time.Minute)
		s.gc(s.other, s3.GCOptions{})
		require.Empty(t, s.sim.Keys("pack/"))
		require.False(t, s.present(s.node))
	})
}

// TestTailThatComesBack: a request that was on its way writes a tail again that was folded, and gc finds it when the pack
// may be deleted. A node that starts while gc is at it must not take the tail for news.
func TestTailThatComesBack(t *testing.T) {
	inScene(t, 0, func(t *testing.T, s *scene) {
		again := s.takeTail()
		again()
		s.gc(s.other, s3.GCOptions{MaxBytes: 1})
		s.gc(s.other, s3.GCOptions{}) // the manifest no longer says that it was folded
		require.Empty(t, s.sim.Keys("tail/"))
		time.Sleep(10 * time.Minute)
		again()
		time.Sleep(grace)
		var started []*s3.Store
		s.b.after = once(1, "swap manifest", func() { started = append(started, open(t, s.sim, s3.Options{Manual: true})) })
		s.gc(s.node, s3.GCOptions{})
		require.Len(t, started, 1)
		require.False(t, s.present(started[0]))
		require.Empty(t, s.sim.Keys("tail/"))
		s.gc(s.node, s3.GCOptions{})
		require.Empty(t, s.sim.Keys("pack/"))
	})
}

// TestTailAfterItsPack: as long as a tail counts that is written again, its pack is not deleted, however little is promised.
func TestTailAfterItsPack(t *testing.T) {
	inScene(t, time.Minute, func(t *testing.T, s *scene) {
		again := s.takeTail()
		again()
		s.gc(s.other, s3.GCOptions{MaxBytes: 1})
		time.Sleep(s3.LongestCommit - time.Minute)
		s.gc(s.other, s3.GCOptions{})
		again()
		s.present(open(t, s.sim, s3.Options{Manual: true, Retention: time.Minute}))
		time.Sleep(2 * time.Minute)
		s.gc(s.other, s3.GCOptions{})
		time.Sleep(s3.Slack)
		s.gc(s.other, s3.GCOptions{})
		require.Empty(t, s.sim.Keys("pack/"))
		again()
		require.False(t, s.present(open(t, s.sim, s3.Options{Manual: true, Retention: time.Minute})))
	})
}

// TestWantedIsNeverMissing: gc copies a pinned blob and condemns the pack that it was in, while a node looks for it that
// has listed the tails before the copy was there.
func TestWantedIsNeverMissing(t *testing.T) {
	inScene(t, 0, func(t *testing.T, s *scene) {
		s.b.after = once(1, "list tail/", func() {
			require.NoError(t, s.other.AddRoot(t.Context(), "main", "prod", s.ds()))
			r, err := s.other.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
			require.NoError(t, err)
			require.EqualValues(t, 1, r.MovedRecords)
		})
		require.True(t, s.present(s.node))
	})
}

// TestCopyOfWhatIsOnItsWay: gc finds a pack whose tail is written, and whose writer, the same node, has no answer yet. What
// it copies out of it must not be taken for what is on its way.
func TestCopyOfWhatIsOnItsWay(t *testing.T) {
	inScene(t, 0, func(t *testing.T, s *scene) {
		bs, collected := blobs(61, 4, 1000), make(chan error, 1)
		s.blob = bs[0]
		s.b.after = once(1, "put tail/", func() {
			require.NoError(t, s.other.AddRoot(t.Context(), "main", "prod", s.ds()))
			go func() {
				_, err := s.node.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
				collected <- err
			}()
			synctest.Wait() // until gc waits for its own commit
		})
		require.NoError(t, s.node.Namespace("main").PutMany(t.Context(), bs))
		require.NoError(t, <-collected)
		require.True(t, s.present(s.node))
	})
}

// TestRootMeetsGC: whichever of a root and a condemnation is first, the other one sees it.
func TestRootMeetsGC(t *testing.T) {
	t.Run("condemned before the root is added", func(t *testing.T) {
		inScene(t, 0, func(t *testing.T, s *scene) {
			s.b.after = once(1, "put root/", func() { s.gc(s.other, s3.GCOptions{MaxBytes: 1}) })
			err := s.node.AddRoot(t.Context(), "main", "prod", s.ds())
			require.ErrorIs(t, err, cache.ErrNotFound)
		})
	})
	t.Run("root added before it is condemned", func(t *testing.T) {
		inScene(t, 0, func(t *testing.T, s *scene) {
			s.b.before = once(2, "swap manifest", func() {
				require.NoError(t, s.other.AddRoot(t.Context(), "main", "prod", s.ds()))
			})
			s.gc(s.node, s3.GCOptions{MaxBytes: 1})
			require.True(t, s.present(s.node))
			roots, err := s.node.Roots(t.Context())
			require.NoError(t, err)
			require.Len(t, roots, 2)
		})
	})
	t.Run("the root's list is swept before the root is added", func(t *testing.T) {
		inScene(t, 0, func(t *testing.T, s *scene) {
			s.b.after = once(1, "put root/", func() {
				time.Sleep(2*s3.LongestCommit + time.Minute)
				s.gc(s.other, s3.GCOptions{})
			})
			err := s.node.AddRoot(t.Context(), "main", "prod", s.ds())
			require.ErrorContains(t, err, "try again")
			s.gc(s.other, s3.GCOptions{})
		})
	})
}
