package channel

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// hall is a cache, a publisher and one that follows it.
type hall struct {
	t        *testing.T
	store    *memory.Store
	results  cache.ActionCache
	key      ed25519.PrivateKey
	opts     Options
	f        *Follower
	deployed []string // location@python, in order
	fail     error
	reports  map[string]error
}

func newHall(t *testing.T, change ...func(*Options)) *hall {
	h := &hall{t: t, store: memory.New(), reports: map[string]error{}}
	h.results = complete.New(h.store, h.store)
	h.key = newKey(t)
	h.opts = Options{
		Name: "prod", Keys: []ed25519.PublicKey{h.key.Public().(ed25519.PublicKey)}, Every: time.Millisecond,
		Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		Open: func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
			return h.store, h.results, io.NopCloser(nil), nil
		},
		Deploy: func(_ context.Context, location string, r Release) error {
			h.deployed = append(h.deployed, location+"@"+r.Spec.GetPython())
			return h.fail
		},
		Report: func(location string, err error) { h.reports[location] = err },
	}
	for _, c := range change {
		c(&h.opts)
	}
	h.restart()
	return h
}

func newKey(t *testing.T) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	return key
}

func (h *hall) restart() {
	f, err := New(h.opts)
	require.NoError(h.t, err)
	h.f = f
}

// release is a version whose trees are in the cache.
func (h *hall) release(python string) Release {
	d, err := cache.PutBlob(h.t.Context(), h.store, []byte("pass"))
	require.NoError(h.t, err)
	var b merkle.Builder
	require.NoError(h.t, b.File("app.py", d))
	tree, err := b.Build()
	require.NoError(h.t, err)
	require.NoError(h.t, tree.Put(h.t.Context(), h.store))
	return Release{Spec: &codeserverpb.VersionSpec{
		DepsRoot: tree.Root().Proto(), SourceRoot: tree.Root().Proto(), Python: python,
		Outputs: map[string]*repb.Digest{"static": tree.Root().Proto()},
	}}
}

func (h *hall) pointer(sequence int64, python string, locations ...string) *Pointer {
	p := &Pointer{Channel: "prod", Sequence: sequence, IssuedAt: time.Unix(sequence, 0), Locations: map[string]Release{}}
	for _, l := range locations {
		p.Locations[l] = h.release(python)
	}
	return p
}

func (h *hall) publish(p *Pointer) []byte {
	envelope, err := p.Sign(h.t.Context(), h.key)
	require.NoError(h.t, err)
	h.put(p, envelope)
	return envelope
}

// put stores an envelope as if it were that of the pointer.
func (h *hall) put(p *Pointer, envelope []byte) {
	require.NoError(h.t, Publish(h.t.Context(), h.store, h.results, p, envelope))
}

// take returns what was deployed since the last call.
func (h *hall) take() []string {
	d := h.deployed
	h.deployed = nil
	return d
}

func TestFollow(t *testing.T) {
	h := newHall(t)
	require.ErrorIs(t, h.f.Poll(t.Context()), ErrUnpublished)
	h.publish(h.pointer(1, "3.11", "web", "api"))
	require.NoError(t, h.f.Poll(t.Context()))
	require.Equal(t, []string{"api@3.11", "web@3.11"}, h.take())
	require.NoError(t, h.f.Poll(t.Context()))
	h.restart()
	require.NoError(t, h.f.Poll(t.Context()))
	require.Empty(t, h.take(), "what was deployed is not deployed again, whatever is done by hand in between")

	h.publish(h.pointer(5, "3.12", "web"))
	require.NoError(t, h.f.Poll(t.Context()))
	require.Equal(t, []string{"web@3.12"}, h.take())
	require.NoError(t, h.reports["web"])
}

// TestFollowSome follows one location of several, and one that the channel does not have.
func TestFollowSome(t *testing.T) {
	h := newHall(t, func(o *Options) { o.Locations = []string{"web", "none"} })
	h.publish(h.pointer(1, "3.11", "web", "api"))
	require.NoError(t, h.f.Poll(t.Context()))
	require.Equal(t, []string{"web@3.11"}, h.take())
	require.ErrorContains(t, h.reports["none"], "says nothing of it")
}

// TestFailed has a version that does not become ready, and one that meets trouble which passes.
func TestFailed(t *testing.T) {
	h := newHall(t)
	h.publish(h.pointer(1, "3.11", "web"))
	h.fail = errors.New("not ready")
	require.NoError(t, h.f.Poll(t.Context()))
	require.ErrorContains(t, h.reports["web"], "not ready")
	require.NoError(t, h.f.Poll(t.Context()))
	require.Len(t, h.take(), 1, "it is not tried again")
	require.ErrorContains(t, h.reports["web"], "not ready", "and still said")
	h.restart()
	require.NoError(t, h.f.Poll(t.Context()))
	require.Len(t, h.take(), 1, "but by a restart")

	h.publish(h.pointer(2, "3.12", "web"))
	h.fail = ErrAgain
	require.ErrorIs(t, h.f.Poll(t.Context()), ErrAgain)
	h.fail = nil
	require.NoError(t, h.f.Poll(t.Context()))
	require.Equal(t, []string{"web@3.12", "web@3.12"}, h.take())
	require.NoError(t, h.reports["web"])
}

// TestRefused puts into the channel's place what must not be believed.
func TestRefused(t *testing.T) {
	other := newKey(t)
	for name, c := range map[string]struct {
		envelope func(h *hall) []byte
		want     string
	}{
		"older":                        {func(h *hall) []byte { return sign(h, h.key, h.pointer(9, "3.12", "web")) }, "published before 10"},
		"same sequence, other content": {func(h *hall) []byte { return sign(h, h.key, h.pointer(10, "3.12", "web")) }, "two pointers of sequence 10"},
		"other key":                    {func(h *hall) []byte { return sign(h, other, h.pointer(11, "3.12", "web")) }, "no key that is trusted"},
		"other channel": {func(h *hall) []byte {
			p := h.pointer(11, "3.12", "web")
			p.Channel = "staging"
			return sign(h, h.key, p)
		}, `a pointer of "staging"`},
		"altered payload": {func(h *hall) []byte {
			return alter(h, func(e map[string]any) {
				b, err := base64.StdEncoding.DecodeString(e["payload"].(string))
				require.NoError(h.t, err)
				e["payload"] = base64.StdEncoding.EncodeToString(bytes.Replace(b, []byte("3.12"), []byte("3.13"), 1))
			})
		}, "no key that is trusted"},
		"other kind of document": {func(h *hall) []byte {
			return alter(h, func(e map[string]any) { e["payloadType"] = "application/vnd.in-toto+json" })
		}, "application/vnd.in-toto+json"},
		"no signature": {func(h *hall) []byte {
			return alter(h, func(e map[string]any) { e["signatures"] = []any{} })
		}, "no key that is trusted"},
		"garbage":      {func(*hall) []byte { return []byte("garbage") }, "no DSSE envelope"},
		"empty":        {func(*hall) []byte { return nil }, "no DSSE envelope"},
		"not a number": {func(h *hall) []byte { return sign(h, h.key, h.pointer(0, "3.12", "web")) }, "the sequence number is 0"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHall(t)
			h.publish(h.pointer(10, "3.11", "web"))
			require.NoError(t, h.f.Poll(t.Context()))
			require.Equal(t, []string{"web@3.11"}, h.take())
			h.restart() // what was seen is on disk
			h.put(h.pointer(11, "3.12", "web"), c.envelope(h))
			err := h.f.Poll(t.Context())
			require.ErrorIs(t, err, ErrRefused)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, h.reports["web"], c.want, "it is said where people look")
			require.Empty(t, h.take())

			h.publish(h.pointer(12, "3.12", "web"))
			require.NoError(t, h.f.Poll(t.Context()), "the next good one is followed")
			require.Equal(t, []string{"web@3.12"}, h.take())
		})
	}
}

func sign(h *hall, key ed25519.PrivateKey, p *Pointer) []byte {
	b, err := p.Sign(h.t.Context(), key)
	require.NoError(h.t, err)
	return b
}

// alter changes a good envelope.
func alter(h *hall, change func(map[string]any)) []byte {
	e := map[string]any{}
	require.NoError(h.t, json.Unmarshal(sign(h, h.key, h.pointer(11, "3.12", "web")), &e))
	change(e)
	b, err := json.Marshal(e)
	require.NoError(h.t, err)
	return b
}

// TestUnpublished follows all locations of a channel that is not there, of which none is known: that is reported, until it is.
func TestUnpublished(t *testing.T) {
	h := newHall(t)
	require.Error(t, h.f.Poll(t.Context()))
	require.ErrorContains(t, h.reports[All], "prod")
	require.Len(t, h.reports, 1)
	h.publish(h.pointer(1, "3.11", "web"))
	require.NoError(t, h.f.Poll(t.Context()))
	require.NoError(t, h.reports[All])
	require.Contains(t, h.reports, "web")

	some := newHall(t, func(o *Options) { o.Locations = []string{"web"} })
	require.Error(t, some.f.Poll(t.Context()))
	require.Error(t, some.reports["web"])
	require.NotContains(t, some.reports, All)
}

// TestStrict refuses what a signed payload says that this version does not know.
func TestStrict(t *testing.T) {
	for payload, want := range map[string]string{
		`{"channel":"prod","sequence":1,"locations":{},"expires":"never"}`:               "unknown field",
		`{"channel":"prod","sequence":1,"locations":{}} {}`:                              "something follows",
		`{"channel":"prod","sequence":1,"locations":{"web":{"spec":{"pithon":"3.11"}}}}`: "pithon",
		`{"channel":"prod","sequence":1,"locations":{"web":{"spec":{},"sudo":true}}}`:    "unknown field",
		`{"channel":"prod","sequence":1e99,"locations":{}}`:                              "cannot unmarshal",
		`{"channel":"prod","sequence":-1,"locations":{}}`:                                "sequence number is -1",
		strings.Repeat("[", 20000):                                                       "no pointer",
	} {
		_, err := decode([]byte(payload))
		require.ErrorIs(t, err, ErrRefused)
		require.ErrorContains(t, err, want)
	}
}

// TestMissing has a pointer whose blob the cache lost, and one whose trees it does not have.
func TestMissing(t *testing.T) {
	h := newHall(t)
	h.results = h.store // one that hands out results with gaps
	h.restart()
	h.publish(h.pointer(1, "3.11", "web"))
	require.NoError(t, h.f.Poll(t.Context()))
	h.take()

	f, err := pointerOf("prod")
	require.NoError(t, err)
	key := f.Key()
	lost := digest.FromBytes([]byte("lost"))
	ar := &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "pointer.json", Digest: lost.Proto()}}}
	require.NoError(t, h.store.UpdateActionResult(t.Context(), key, ar))
	err = h.f.Poll(t.Context())
	require.ErrorIs(t, err, cache.ErrNotFound)
	require.ErrorContains(t, err, "read the pointer of channel prod")
	require.ErrorContains(t, h.reports["web"], lost.String())

	require.NoError(t, h.store.UpdateActionResult(t.Context(), key, &repb.ActionResult{}))
	require.ErrorIs(t, h.f.Poll(t.Context()), ErrRefused)
	require.Empty(t, h.take())

	p := h.pointer(2, "3.12", "web")
	p.Locations["web"].Spec.SourceRoot = lost.Proto()
	require.ErrorIs(t, Publish(t.Context(), h.store, complete.New(h.store, h.store), p, []byte("x")), cache.ErrNotFound)
}

// TestClosure asks that the cache's entry names all that followers need, so that it is kept as long as the entry.
func TestClosure(t *testing.T) {
	h := newHall(t)
	envelope := h.publish(h.pointer(1, "3.11", "web"))
	f, err := pointerOf("prod")
	require.NoError(t, err)
	key := f.Key()
	require.Equal(t, "6aa8c8", key.Hash()[:6], "other releases look in the same place")
	ar, err := h.store.GetActionResult(t.Context(), key)
	require.NoError(t, err)
	all, err := complete.Closure(t.Context(), h.store, key.Function(), ar)
	require.NoError(t, err)
	require.Contains(t, all, digest.FromBytes(envelope))
	require.Contains(t, all, digest.FromBytes([]byte("pass")), "a file of the trees")
	var paths []string
	for _, d := range ar.GetOutputDirectories() {
		paths = append(paths, d.GetPath())
	}
	require.Equal(t, []string{"web/deps.pex", "web/output-static", "web/source.pex"}, paths)
	missing, err := h.store.FindMissing(t.Context(), []digest.Digest{key})
	require.NoError(t, err)
	require.Empty(t, missing, "the Action is a blob like any other's")
}

// TestDamagedState does not begin anew when it cannot read what it has seen.
func TestDamagedState(t *testing.T) {
	h := newHall(t)
	require.NoError(t, os.WriteFile(filepath.Join(h.opts.Dir, "prod.json"), []byte("{"), 0o600))
	_, err := New(h.opts)
	require.ErrorContains(t, err, "remove it to believe")
}

// TestRun polls until it is ended, over a cache that cannot be opened at first.
func TestRun(t *testing.T) {
	opened, served := 0, make(chan struct{})
	h := newHall(t, func(o *Options) {
		inner := o.Open
		o.Open = func(ctx context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
			if opened++; opened < 3 {
				return nil, nil, nil, errors.New("away")
			}
			return inner(ctx)
		}
		o.Deploy = func(context.Context, string, Release) error { close(served); return nil }
	})
	h.publish(h.pointer(1, "3.11", "web"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { h.f.Run(ctx); close(done) }()
	<-served
	cancel()
	<-done
	require.Equal(t, 3, opened)
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{"prod": true, "a.b-c_1": true, "": false, "../x": false, ".x": false, "a/b": false, strings.Repeat("x", 64): false} {
		require.Equal(t, ok, CheckName(name) == nil, name)
	}
	_, err := New(Options{Name: "prod"})
	require.ErrorContains(t, err, "no key")
}
