package build_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin"
	"github.com/pexpress/pexpress/plugin/action"
	"github.com/pexpress/pexpress/plugin/build"
)

// copier is a builder whose output is its input root.
type copier struct{ started int }

func (c *copier) Builder(context.Context, string) (plugin.Builder, error) {
	c.started++
	return c, nil
}

func (c *copier) Describe(context.Context) (plugin.Description, error) {
	return plugin.Description{Name: "copier"}, nil
}

func (c *copier) Build(ctx context.Context, cas cache.CAS, d digest.Digest) (*repb.ActionResult, error) {
	var a repb.Action
	if err := cache.ReadMessage(ctx, cas, d, &a); err != nil {
		return nil, err
	}
	root, err := digest.FromProto(a.GetInputRootDigest())
	if err != nil {
		return nil, err
	}
	t, err := merkle.Load(ctx, cas, root)
	if err != nil {
		return nil, err
	}
	td, err := cache.PutMessage(ctx, cas, t.Proto())
	return &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{
		Path: "deps.pex", TreeDigest: td.Proto(), RootDirectoryDigest: root.Proto(),
	}}}, err
}

func plan(t *testing.T) *action.Plan {
	var b merkle.Builder
	require.NoError(t, b.File("runtime/x", digest.FromBytes([]byte("x"))))
	bootstrap, err := b.Build()
	require.NoError(t, err)
	p, err := action.Deps(action.DepsInput{
		Wheels: []action.File{{Name: "a-1-py3-none-any.whl", Digest: digest.FromBytes([]byte("a"))}}, Bootstrap: bootstrap,
		Python: "3.11", Platform: "any", OutputVersion: "1",
	})
	require.NoError(t, err)
	return p
}

// TestRun checks that a miss brings the inputs and starts a builder, and that a hit does neither.
func TestRun(t *testing.T) {
	ctx := t.Context()
	m := memory.New()
	builders := &copier{}
	e := &build.Executor{CAS: m, ActionCache: complete.New(m, m), Builders: builders}
	brought := 0
	inputs := func(ctx context.Context) error {
		brought++
		return build.PutBlobs(ctx, m, map[digest.Digest][]byte{
			digest.FromBytes([]byte("a")): []byte("a"), digest.FromBytes([]byte("x")): []byte("x"),
		})
	}
	p := plan(t)
	r, err := e.Run(ctx, p, inputs)
	require.NoError(t, err)
	require.False(t, r.Hit)
	require.Equal(t, p.InputRoot.Root(), r.Root)
	require.Equal(t, [2]int{1, 1}, [2]int{brought, builders.started})
	again, err := e.Run(ctx, p, inputs)
	require.NoError(t, err)
	require.True(t, again.Hit)
	require.Equal(t, r.Root, again.Root)
	require.Equal(t, [2]int{1, 1}, [2]int{brought, builders.started}, "a hit brings nothing and starts nothing")
}

// TestRunFails checks that a failure of the cache is no miss, and that nothing is stored of a build without its inputs.
func TestRunFails(t *testing.T) {
	ctx := t.Context()
	m := memory.New()
	broken := errors.New("the disk is on fire")
	e := &build.Executor{CAS: m, ActionCache: failing{broken}, Builders: &copier{}}
	_, err := e.Run(ctx, plan(t), func(context.Context) error {
		require.Fail(t, "a cache that fails is no miss")
		return nil
	})
	require.ErrorIs(t, err, broken)

	e.ActionCache = complete.New(m, m)
	_, err = e.Run(ctx, plan(t), func(context.Context) error { return broken })
	require.ErrorIs(t, err, broken)
	_, err = e.Run(ctx, plan(t), func(context.Context) error { return nil })
	require.ErrorIs(t, err, cache.ErrNotFound, "the wheel is not in the CAS, and so no result may name it")
	_, err = m.GetActionResult(ctx, plan(t).Digest)
	require.ErrorIs(t, err, cache.ErrNotFound)
}

type failing struct{ err error }

func (f failing) GetActionResult(context.Context, digest.Digest) (*repb.ActionResult, error) {
	return nil, f.err
}

func (f failing) UpdateActionResult(context.Context, digest.Digest, *repb.ActionResult) error {
	return f.err
}

// TestAttempts checks what is tried again: a build whose inputs the cache lost, and never inputs that are refused.
func TestAttempts(t *testing.T) {
	ctx := t.Context()
	m := memory.New()
	builders := &copier{}
	e := &build.Executor{CAS: m, ActionCache: complete.New(m, m), Builders: builders}
	asked := 0
	_, err := e.Run(ctx, plan(t), func(context.Context) error {
		asked++
		return fmt.Errorf("a wheel is not what the lock says: %w", digest.ErrMismatch)
	})
	require.ErrorIs(t, err, digest.ErrMismatch)
	require.Equal(t, [2]int{1, 0}, [2]int{asked, builders.started}, "to fetch it again would not help")

	asked = 0
	r, err := e.Run(ctx, plan(t), func(ctx context.Context) error {
		if asked++; asked < 3 {
			return nil // as if another process had emptied the cache meanwhile
		}
		return build.PutBlobs(ctx, m, map[digest.Digest][]byte{
			digest.FromBytes([]byte("a")): []byte("a"), digest.FromBytes([]byte("x")): []byte("x"),
		})
	})
	require.NoError(t, err)
	require.Equal(t, plan(t).InputRoot.Root(), r.Root)
	require.Equal(t, 3, asked)
}

// TestCounter checks that only what was not there before counts as shipped.
func TestCounter(t *testing.T) {
	ctx := t.Context()
	m := memory.New()
	_, err := cache.PutBlob(ctx, m, []byte("old"))
	require.NoError(t, err)
	c := build.Count(m)
	for range 2 {
		for _, s := range []string{"old", "new"} {
			_, err := cache.PutBlob(ctx, c, []byte(s))
			require.NoError(t, err)
		}
	}
	many := []cache.Blob{}
	for _, s := range []string{"old", "new", "newer", "newer"} {
		many = append(many, cache.Blob{Digest: digest.FromBytes([]byte(s)), Data: []byte(s)})
	}
	require.NoError(t, cache.PutAll(ctx, c, many))
	blobs, bytes := c.Shipped()
	require.Equal(t, [2]int64{2, 8}, [2]int64{blobs, bytes})
}

// asked counts the digests that a CAS is asked for.
type asked struct {
	cache.CAS
	n int
}

func (a *asked) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	a.n += len(ds)
	return a.CAS.FindMissing(ctx, ds)
}

// TestSeen checks that what is there is looked for once, until a blob is found to be lost.
func TestSeen(t *testing.T) {
	ctx := t.Context()
	below := &asked{CAS: memory.New()}
	old, err := cache.PutBlob(ctx, below, []byte("old"))
	require.NoError(t, err)
	lost := digest.FromBytes([]byte("lost"))
	c := build.Remember(below)
	put, err := cache.PutBlob(ctx, c, []byte("put"))
	require.NoError(t, err)
	find := func(want int) {
		t.Helper()
		below.n = 0
		missing, err := c.FindMissing(ctx, []digest.Digest{old, lost, put})
		require.NoError(t, err)
		require.Equal(t, []digest.Digest{lost}, missing)
		require.Equal(t, want, below.n)
	}
	find(2)
	find(1)
	_, err = c.Get(ctx, lost)
	require.ErrorIs(t, err, cache.ErrNotFound)
	find(3)
	c.Forget()
	find(3)
}

// TestPutFiles refuses a file that has changed since it was hashed.
func TestPutFiles(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "a.py")
	require.NoError(t, os.WriteFile(path, []byte("after"), 0o600))
	m := memory.New()
	d := digest.FromBytes([]byte("before"))
	err := build.PutFiles(ctx, m, map[digest.Digest]string{d: path})
	require.ErrorIs(t, err, digest.ErrMismatch)
	require.ErrorContains(t, err, path)
	after := digest.FromBytes([]byte("after"))
	require.NoError(t, build.PutFiles(ctx, m, map[digest.Digest]string{after: path}))
	missing, err := m.FindMissing(ctx, []digest.Digest{d, after})
	require.NoError(t, err)
	require.Equal(t, []digest.Digest{d}, missing)
}

func TestDiff(t *testing.T) {
	tree := func(files map[string]string) *merkle.Tree {
		var b merkle.Builder
		for name, content := range files {
			require.NoError(t, b.File(name, digest.FromBytes([]byte(content))))
		}
		built, err := b.Build()
		require.NoError(t, err)
		return built
	}
	before := tree(map[string]string{"same": "1", "dir/changed": "1", "removed": "1", "other/same": "1"})
	after := tree(map[string]string{"same": "1", "dir/changed": "22", "added": "333", "other/same": "1"})
	require.Equal(t, []build.Change{
		{Path: "added", Kind: "added", Size: 3}, {Path: "dir/changed", Kind: "changed", Size: 2}, {Path: "removed", Kind: "removed"},
	}, build.Diff(before, after))
	n, size := build.NewDirectories(before, after)
	require.Equal(t, 2, n, "the root and dir; other is shared")
	require.Positive(t, size)
	require.Len(t, build.Diff(nil, after), 4)
}

// full is a CAS that has no room.
type full struct{ cache.CAS }

func (full) Put(context.Context, digest.Digest, io.Reader) error { return cache.ErrFull }

// TestBring: the plan is stored beside its inputs. When one of the two fails the other is stopped, and the one that failed is told.
func TestBring(t *testing.T) {
	m := memory.New()
	builders := &copier{}
	e := &build.Executor{CAS: full{m}, ActionCache: complete.New(m, m), Builders: builders}
	_, err := e.Run(t.Context(), plan(t), func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	require.ErrorIs(t, err, cache.ErrFull)
	require.ErrorContains(t, err, "upload the deps action")

	e.CAS = never{m}
	asked := 0
	_, err = e.Run(t.Context(), plan(t), func(context.Context) error {
		asked++
		return fmt.Errorf("the index has no such wheel: %w", cache.ErrNotFound)
	})
	require.ErrorContains(t, err, "inputs of deps.pex: the index has no such wheel")
	require.Equal(t, 1, asked, "no second try mends that")
	require.Zero(t, builders.started)
}

// never is a CAS that stores nothing until nobody waits for it.
type never struct{ cache.CAS }

func (never) Put(ctx context.Context, _ digest.Digest, _ io.Reader) error {
	<-ctx.Done()
	return ctx.Err()
}
