package instance_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/cachetest"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/instance"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// store keeps a memory.Store for each namespace.
type store struct {
	mu    sync.Mutex
	names map[string]*memory.Store
	used  map[string]int64
	err   error
}

func newStore() *store { return &store{names: map[string]*memory.Store{}, used: map[string]int64{}} }

func (s *store) namespace(name string) *memory.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] == nil {
		s.names[name] = memory.New()
	}
	return s.names[name]
}

func (s *store) Namespace(name string) (cache.CAS, cache.ActionCache, error) {
	m := s.namespace(name)
	return m, m, nil
}

func (s *store) Usage(_ context.Context, name string) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used[name], s.err
}

var everyone = auth.Patterns{"*", auth.Anonymous}

func as(t *testing.T, who string) context.Context { return cache.WithPrincipal(t.Context(), who) }

func mustNew(t *testing.T, s instance.Store, configs ...instance.Config) *instance.Instances {
	i, err := instance.New(s, configs)
	require.NoError(t, err)
	return i
}

func openTo(who auth.Patterns, name string, parent *string) instance.Config {
	return instance.Config{Name: name, Parent: parent, Read: who, WriteCAS: who, WriteActions: who}
}

func get(t *testing.T, i *instance.Instances, name string) server.Instance {
	in, err := i.Instance(as(t, "token:x"), name, server.Read)
	require.NoError(t, err)
	return in
}

func TestRights(t *testing.T) {
	i := mustNew(t, newStore(), instance.Config{
		Name: "main", Read: auth.Patterns{"token:*", "cert:reader"}, WriteCAS: auth.Patterns{"token:ci"}, WriteActions: auth.Patterns{"token:ci*"},
	})
	for _, test := range []struct {
		who, instance string
		want          server.Access
		code          codes.Code
	}{
		{"token:ci", "main", server.Read, codes.OK},
		{"token:ci", "main", server.WriteCAS, codes.OK},
		{"token:ci", "main", server.WriteActions, codes.OK},
		{"cert:reader", "main", server.Read, codes.OK},
		{"cert:reader", "main", server.WriteCAS, codes.PermissionDenied},
		{"cert:reader", "main", server.WriteActions, codes.PermissionDenied},
		{"token:ci2", "main", server.WriteCAS, codes.PermissionDenied},
		{"token:ci2", "main", server.WriteActions, codes.OK},
		{"cert:token:ci", "main", server.Read, codes.PermissionDenied},
		{auth.Anonymous, "main", server.Read, codes.Unauthenticated},
		{"", "main", server.Read, codes.Unauthenticated},
		{"token:ci", "main", server.Access(9), codes.PermissionDenied},
		{"token:ci", "", server.Read, codes.InvalidArgument},
		{"token:ci", "other", server.Read, codes.InvalidArgument},
	} {
		_, err := i.Instance(as(t, test.who), test.instance, test.want)
		require.Equal(t, test.code, status.Code(err), "%+v: %v", test, err)
		require.Equal(t, test.code == codes.OK, i.May(as(t, test.who), test.instance, test.want), "%+v", test)
	}
}

func TestEveryoneMustBeListedAsAnonymous(t *testing.T) {
	i := mustNew(t, newStore(), openTo(auth.Patterns{"*"}, "named", nil), openTo(everyone, "open", nil))
	require.False(t, i.May(as(t, auth.Anonymous), "named", server.Read))
	require.True(t, i.May(as(t, auth.Anonymous), "open", server.Read))
	require.False(t, i.May(t.Context(), "open", server.Read), "a call that never passed authentication has no rights")
}

func TestInstancesShareNothing(t *testing.T) {
	i := mustNew(t, newStore(), openTo(everyone, "a", nil), openTo(everyone, "b", nil), openTo(everyone, "x-*", nil))
	d, err := cache.PutBlob(t.Context(), get(t, i, "a").CAS, []byte("secret"))
	require.NoError(t, err)
	for _, other := range []string{"b", "x-1", "x-a"} {
		_, err := get(t, i, other).CAS.Get(t.Context(), d)
		require.ErrorIs(t, err, cache.ErrNotFound, other)
	}
}

func TestPatterns(t *testing.T) {
	i := mustNew(t, newStore(), openTo(everyone, "pr-*", nil), openTo(everyone, "pr-long-*", nil), openTo(auth.Patterns{"token:boss"}, "pr-7", nil))
	require.True(t, i.May(as(t, "token:x"), "pr-8", server.Read))
	require.False(t, i.May(as(t, "token:x"), "pr-7", server.Read), "an exact name counts before a pattern")
	for _, name := range []string{"pr-", "pr-*", "pr-a/b", "xpr-1", "pr-a b", "pr-\x00"} {
		require.False(t, i.May(as(t, "token:x"), name, server.Read), "%q", name)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	parent := func(s string) *string { return &s }
	for says, configs := range map[string][]instance.Config{
		"twice":                   {{Name: "a"}, {Name: "a"}},
		"is not configured":       {{Name: "a", Parent: parent("b")}},
		"is a pattern":            {{Name: "a", Parent: parent("b-*")}, {Name: "b-*"}},
		"is its own":              {{Name: "a", Parent: parent("b")}, {Name: "b", Parent: parent("a")}},
		"another meaning":         {{Name: "a/blobs"}},
		"at most 128":             {{Name: "../etc"}},
		"one * is allowed":        {{Name: "a*b*"}},
		"quota is negative":       {{Name: "a", Quota: -1}},
		"in parts separated by /": {{Name: "/a"}},
	} {
		_, err := instance.New(newStore(), configs)
		require.ErrorContains(t, err, says)
	}
}

// TestOverlay follows a pull request: it reads what main built, adds its own, and main never sees it.
func TestOverlay(t *testing.T) {
	name := "main"
	i := mustNew(t, newStore(), openTo(everyone, "main", nil), openTo(everyone, "pr-*", &name))
	main, pr, other := get(t, i, "main"), get(t, i, "pr-1"), get(t, i, "pr-2")
	theirs, err := cache.PutBlob(t.Context(), main.CAS, []byte("built on main"))
	require.NoError(t, err)
	ours, err := cache.PutBlob(t.Context(), pr.CAS, []byte("built for the pull request"))
	require.NoError(t, err)
	neither := digest.FromBytes([]byte("built by nobody"))
	for name, want := range map[*server.Instance][]digest.Digest{
		&main: {ours, neither}, &pr: {neither}, &other: {ours, neither},
	} {
		missing, err := name.CAS.FindMissing(t.Context(), []digest.Digest{theirs, ours, neither})
		require.NoError(t, err)
		require.Equal(t, want, missing)
	}
	require.NoError(t, cache.GetAll(t.Context(), pr.CAS, []digest.Digest{ours, neither, theirs, ours, neither}, 100, func(n int, data []byte, err error) {
		want := []string{"built for the pull request", "", "built on main", "built for the pull request", ""}[n]
		require.Equal(t, want, string(data))
		require.Equal(t, want == "", errors.Is(err, cache.ErrNotFound), "%v", err)
	}))

	action := digest.FromBytes([]byte("action"))
	result := func(d digest.Digest) *repb.ActionResult {
		return &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: d.Proto()}}}
	}
	require.NoError(t, main.ActionCache.UpdateActionResult(t.Context(), action, result(theirs)))
	got, err := pr.ActionCache.GetActionResult(t.Context(), action)
	require.NoError(t, err)
	require.Equal(t, theirs.Hash(), got.GetOutputFiles()[0].GetDigest().GetHash(), "what main built is read through")

	require.NoError(t, pr.ActionCache.UpdateActionResult(t.Context(), action, result(ours)))
	for in, want := range map[*server.Instance]digest.Digest{&main: theirs, &pr: ours, &other: theirs} {
		got, err := in.ActionCache.GetActionResult(t.Context(), action)
		require.NoError(t, err)
		require.Equal(t, want.Hash(), got.GetOutputFiles()[0].GetDigest().GetHash())
	}
	// A result may name what only the parent holds; a result on main may not name what only the pull request holds.
	second := digest.FromBytes([]byte("second action"))
	require.NoError(t, pr.ActionCache.UpdateActionResult(t.Context(), second, result(theirs)))
	require.ErrorIs(t, main.ActionCache.UpdateActionResult(t.Context(), second, result(ours)), cache.ErrNotFound)
}

// TestIncompleteResultFallsThrough loses a blob of the instance's own result: the parent's complete one is the answer.
func TestIncompleteResultFallsThrough(t *testing.T) {
	s, name := newStore(), "main"
	i := mustNew(t, s, openTo(everyone, "main", nil), openTo(everyone, "pr", &name))
	action := digest.FromBytes([]byte("action"))
	lost := digest.FromBytes([]byte("lost"))
	own := s.namespace("pr")
	require.NoError(t, own.UpdateActionResult(t.Context(), action, &repb.ActionResult{StdoutDigest: lost.Proto()}))
	pr := get(t, i, "pr")
	_, err := pr.ActionCache.GetActionResult(t.Context(), action)
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.NoError(t, get(t, i, "main").ActionCache.UpdateActionResult(t.Context(), action, &repb.ActionResult{StdoutRaw: []byte("main's")}))
	got, err := pr.ActionCache.GetActionResult(t.Context(), action)
	require.NoError(t, err)
	require.Equal(t, "main's", string(got.GetStdoutRaw()))
}

func TestConformance(t *testing.T) {
	name := "main"
	newInstance := func(t *testing.T, quota int64) server.Instance {
		c := openTo(everyone, "pr", &name)
		c.Quota = quota
		return get(t, mustNew(t, newStore(), openTo(everyone, "main", nil), c), "pr")
	}
	for kind, quota := range map[string]int64{"overlay": 0, "overlay and quota": 1 << 40} {
		t.Run(kind, func(t *testing.T) {
			cachetest.TestCAS(t, func(t *testing.T) cache.CAS { return newInstance(t, quota).CAS })
			cachetest.TestActionCache(t, func(t *testing.T) (cache.CAS, cache.ActionCache) {
				in := newInstance(t, quota)
				return in.CAS, in.ActionCache
			})
		})
	}
}

func TestQuota(t *testing.T) {
	s := newStore()
	s.used["q"] = 70
	c := openTo(everyone, "q", nil)
	c.Quota = 100
	in := get(t, mustNew(t, s, c), "q")
	_, err := cache.PutBlob(t.Context(), in.CAS, make([]byte, 20))
	require.NoError(t, err, "it fits")
	_, err = cache.PutBlob(t.Context(), in.CAS, make([]byte, 11))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, "holds 90 of the 100 bytes")
	var full *instance.QuotaError
	require.ErrorAs(t, err, &full)
	require.ErrorIs(t, err, cache.ErrFull)
	require.Error(t, cache.PutAll(t.Context(), in.CAS, []cache.Blob{{Digest: digest.FromBytes(make([]byte, 12)), Data: make([]byte, 12)}}))

	// What is not stored takes no room.
	require.ErrorIs(t, in.CAS.Put(t.Context(), digest.FromBytes([]byte("0123456789")), errReader{}), errRead)
	_, err = cache.PutBlob(t.Context(), in.CAS, make([]byte, 10))
	require.NoError(t, err)
	err = in.ActionCache.UpdateActionResult(t.Context(), digest.FromBytes([]byte("a")), &repb.ActionResult{StdoutRaw: []byte("too much")})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

func TestQuotaThatCannotBeCounted(t *testing.T) {
	s := newStore()
	s.err = errRead
	c := openTo(everyone, "q", nil)
	c.Quota = 100
	_, err := cache.PutBlob(t.Context(), get(t, mustNew(t, s, c), "q").CAS, []byte("x"))
	require.ErrorIs(t, err, errRead)
}

var errRead = errors.New("the source broke")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errRead }
