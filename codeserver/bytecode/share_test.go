package bytecode

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/complete"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/codeserver/venv"
)

func fifo(t *testing.T, path string) { require.NoError(t, unix.Mkfifo(path, 0o600)) }

// fleet is a cache, and a wheel whose bytecode one host has uploaded.
type fleet struct {
	t     *testing.T
	store *memory.Store
	ac    cache.ActionCache
	py    *venv.Interpreter
	wheel venv.Wheel
	key   *Key
	made  map[string]digest.Digest
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, store: memory.New(), py: python311(t), key: newKey([]byte(strings.Repeat("k", 32)))}
	f.ac = complete.New(f.store, f.store)
	d, err := cache.PutBlob(t.Context(), f.store, []byte("a wheel"))
	require.NoError(t, err)
	f.wheel = venv.Wheel{Filename: "pkg-1-py3-none-any.whl", Digest: d}
	dir, out := write(t, sources, sorted(sources)), t.TempDir()
	_, err = Compile(t.Context(), f.py, dir, out, sorted(sources))
	require.NoError(t, err)
	f.made = files(t, out)
	require.NoError(t, os.WriteFile(filepath.Join(out, "part"), []byte("half"), 0o644))
	require.NoError(t, f.share(f.key).upload(t.Context(), f.py, f.wheel, out))
	return f
}

func (f *fleet) open(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
	return f.store, f.ac, io.NopCloser(nil), nil
}

func (f *fleet) share(key *Key) *Share {
	log, _ := logger()
	return NewShare(key, f.open, log)
}

// fetch returns what a host with the key gets, nil if nothing, and what it logs.
func (f *fleet) fetch(key *Key, py *venv.Interpreter) (map[string]digest.Digest, string) {
	log, words := logger()
	var got map[string]digest.Digest
	err := NewShare(key, f.open, log).Fetch(f.t.Context(), py, []venv.Wheel{f.wheel}, func(_ int, files map[string][]byte) error {
		got = map[string]digest.Digest{}
		for name, b := range files {
			got[name] = digest.FromBytes(b)
		}
		return nil
	})
	require.NoError(f.t, err)
	return got, words.String()
}

func TestShared(t *testing.T) {
	f := newFleet(t)
	got, words := f.fetch(f.key, f.py)
	require.Equal(t, f.made, got)
	require.Empty(t, words)
}

// TestOthersAreMisses asks with what the result is not for: another key, release or magic number of Python, another wheel.
func TestOthersAreMisses(t *testing.T) {
	f := newFleet(t)
	miss := func(key *Key, py venv.Interpreter) {
		t.Helper()
		got, words := f.fetch(key, &py)
		require.Nil(t, got)
		require.Empty(t, words)
	}
	miss(newKey([]byte(strings.Repeat("x", 32))), *f.py)
	py := *f.py
	py.FullVersion = "3.11.99"
	miss(f.key, py)
	py = *f.py
	py.Magic = "00000000"
	miss(f.key, py)
	f.wheel.Digest = digest.FromBytes([]byte("another wheel"))
	miss(f.key, *f.py)
}

// TestPoisoned has one who may write to the cache, and does not know the key, put results there.
func TestPoisoned(t *testing.T) {
	f := newFleet(t)
	action, _, err := plan(f.wheel, f.py, f.key)
	require.NoError(t, err)
	honest, err := f.store.GetActionResult(t.Context(), action)
	require.NoError(t, err)
	// The same tree with one byte changed, as an attacker would upload it.
	evilKey := newKey([]byte(strings.Repeat("e", 32)))
	out := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(out, "pkg/__pycache__"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(out, "pkg/__pycache__/__init__.cpython-311.pyc"), []byte("evil"), 0o644))
	require.NoError(t, f.share(evilKey).upload(t.Context(), f.py, f.wheel, out))
	evilAction, _, err := plan(f.wheel, f.py, evilKey)
	require.NoError(t, err)
	evil, err := f.store.GetActionResult(t.Context(), evilAction)
	require.NoError(t, err)

	for name, poison := range map[string]func(*repb.ActionResult){
		"signed with another key":         func(ar *repb.ActionResult) {},
		"with the honest one's signature": func(ar *repb.ActionResult) { ar.StdoutRaw = honest.StdoutRaw },
		"not signed":                      func(ar *repb.ActionResult) { ar.StdoutRaw = nil },
		"no output":                       func(ar *repb.ActionResult) { ar.OutputDirectories = nil },
		"no digest":                       func(ar *repb.ActionResult) { ar.OutputDirectories[0].TreeDigest = nil },
		"failed":                          func(ar *repb.ActionResult) { ar.StdoutRaw, ar.ExitCode = honest.StdoutRaw, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			ar := proto.Clone(evil).(*repb.ActionResult)
			poison(ar)
			require.NoError(t, f.store.UpdateActionResult(t.Context(), action, ar))
			got, words := f.fetch(f.key, f.py)
			require.Nil(t, got)
			require.Contains(t, words, "not believed")
		})
	}
	// A result that is another Action's is signed, but not for this one.
	other := f.wheel
	other.Digest = digest.FromBytes([]byte("another wheel"))
	elsewhere, _, err := plan(other, f.py, f.key)
	require.NoError(t, err)
	require.NoError(t, f.store.UpdateActionResult(t.Context(), elsewhere, honest))
	f.wheel = other
	got, words := f.fetch(f.key, f.py)
	require.Nil(t, got)
	require.Contains(t, words, "not signed with this key")
}

// lossy is a CAS that has other bytes, or none, for blobs that are bytecode.
type lossy struct {
	cache.CAS
	data []byte
}

func (l lossy) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	rc, err := l.CAS.Get(ctx, d)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(rc)
	if err != nil || !bytes.HasPrefix(b, []byte{0xa7, 0x0d, 0x0d, 0x0a}) {
		return io.NopCloser(bytes.NewReader(b)), err
	}
	if l.data == nil {
		return nil, cache.NotFound("blob", d)
	}
	return digest.NewReader(io.NopCloser(bytes.NewReader(l.data)), d), nil
}

func TestDamagedInTheCache(t *testing.T) {
	f := newFleet(t)
	for name, data := range map[string][]byte{"lost": nil, "other bytes": []byte("other bytes")} {
		t.Run(name, func(t *testing.T) {
			log, words := logger()
			s := NewShare(f.key, func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
				return lossy{f.store, data}, f.store, io.NopCloser(nil), nil
			}, log)
			require.NoError(t, s.Fetch(t.Context(), f.py, []venv.Wheel{f.wheel}, func(int, map[string][]byte) error {
				t.Error("a part of it")
				return nil
			}))
			require.Equal(t, data != nil, strings.Contains(words.String(), "not believed"), words)
		})
	}
}

// readOnly refuses what is written.
type readOnly struct{ cache.CAS }

func (readOnly) Put(context.Context, digest.Digest, io.Reader) error { return errAway }

// FindMissing says that nothing is there, so that all is put.
func (readOnly) FindMissing(_ context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	return ds, nil
}

func TestCacheIsAwayOrReadOnly(t *testing.T) {
	f := newFleet(t)
	out := t.TempDir()
	for name, open := range map[string]Open{
		"away": func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) { return nil, nil, nil, errAway },
		"read-only": func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error) {
			return readOnly{f.store}, f.store, io.NopCloser(nil), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			log, words := logger()
			s := NewShare(f.key, open, log)
			for range 3 {
				s.Upload(t.Context(), f.py, f.wheel, out)
			}
			require.Equal(t, 1, strings.Count(words.String(), "cannot be put into the cache"), words)
			require.Equal(t, 1, strings.Count(words.String(), "\n"))
			if name == "away" {
				for range 3 {
					require.ErrorIs(t, s.Fetch(t.Context(), f.py, []venv.Wheel{f.wheel}, nil), errAway)
				}
				require.Equal(t, 2, strings.Count(words.String(), "\n"))
			}
			require.NoError(t, s.Close())
		})
	}
}

func TestReadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	secret := strings.Repeat("s", minSecret)
	put := func(content string, mode os.FileMode) {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		require.NoError(t, os.Chmod(path, mode))
	}
	refused := func(why string) {
		t.Helper()
		_, err := ReadKey(path)
		require.ErrorContains(t, err, why)
		require.NotContains(t, err.Error(), secret)
	}
	refused("no such file")
	put(secret+"\n", 0o600)
	k, err := ReadKey(path)
	require.NoError(t, err)
	require.Equal(t, newKey([]byte(secret)), k)
	require.NotContains(t, k.name, secret)
	put(secret, 0o640)
	_, err = ReadKey(path)
	require.NoError(t, err)
	for _, mode := range []os.FileMode{0o644, 0o660, 0o602} {
		put(secret, mode)
		refused("chmod 600")
	}
	put("  short \n", 0o600)
	refused("32 characters")
	put(strings.Repeat("x", maxSecret+1), 0o600)
	refused("at most")
	require.NoError(t, os.Remove(path))
	fifo(t, path)
	refused("no regular file")
}
