package bytecode

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/venv"
)

// errRefused is wrapped by the errors about a result that is not believed.
var errRefused = errors.New("bytecode refused")

// Open opens the cache that bytecode is shared through.
type Open func(ctx context.Context) (cache.CAS, cache.ActionCache, io.Closer, error)

// Share is a fleet's bytecode in a cache. That the cache cannot be used is said once, in the log: there is bytecode without it.
type Share struct {
	key  *Key
	open Open
	log  *slog.Logger

	mu     sync.Mutex
	cas    cache.CAS
	ac     cache.ActionCache
	closer io.Closer
	told   map[string]bool
}

// NewShare returns what hosts with the key share in a cache.
func NewShare(key *Key, open Open, log *slog.Logger) *Share {
	return &Share{key: key, open: open, log: log, told: map[string]bool{}}
}

// Close ends the connection to the cache.
func (s *Share) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closer == nil {
		return nil
	}
	err := s.closer.Close()
	s.cas, s.ac, s.closer = nil, nil, nil
	return err
}

// connect opens the cache, on first use.
func (s *Share) connect(ctx context.Context) (cache.CAS, cache.ActionCache, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closer != nil {
		return s.cas, s.ac, nil
	}
	cas, ac, closer, err := s.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.cas, s.ac, s.closer = cas, ac, closer
	return cas, ac, nil
}

// tell logs an error the first time that something fails.
func (s *Share) tell(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return // nobody waited any longer
	}
	s.mu.Lock()
	told := s.told[what]
	s.told[what] = true
	s.mu.Unlock()
	if !told {
		s.log.Warn(what+"; this is not said again", "error", err)
	}
}

const (
	cannotFetch  = "bytecode cannot be had from the cache and is made here"
	cannotUpload = "bytecode cannot be put into the cache"
)

// Fetch is a venv.Fetch from the cache.
func (s *Share) Fetch(ctx context.Context, py *venv.Interpreter, wheels []venv.Wheel, got func(int, map[string][]byte) error) error {
	cas, ac, err := s.connect(ctx)
	if err != nil {
		s.tell(ctx, cannotFetch, err)
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4 * runtime.GOMAXPROCS(0))
	for i, w := range wheels {
		g.Go(func() error {
			files, err := s.fetch(gctx, cas, ac, py, w)
			switch {
			case errors.Is(err, cache.ErrNotFound):
				return nil
			case errors.Is(err, errRefused), errors.Is(err, digest.ErrMismatch):
				s.log.Error("bytecode in the cache is not believed, and made here", "wheel", w.Filename, "error", err)
				return nil
			case err != nil:
				return err
			}
			return got(i, files)
		})
	}
	if err := g.Wait(); err != nil {
		s.tell(ctx, cannotFetch, err)
		return err
	}
	return nil
}

// Bounds of what is fetched of one wheel.
const (
	maxFiles = 100_000
	maxFile  = 64 << 20
	maxTotal = 1 << 30
)

func (s *Share) fetch(ctx context.Context, cas cache.CAS, ac cache.ActionCache, py *venv.Interpreter, w venv.Wheel) (map[string][]byte, error) {
	action, _, err := plan(w, py, s.key)
	if err != nil {
		return nil, err
	}
	ar, err := ac.GetActionResult(ctx, action)
	if err != nil {
		return nil, err
	}
	tree, err := s.believe(action, ar)
	if err != nil {
		return nil, err
	}
	msg := &repb.Tree{}
	if err := cache.ReadMessage(ctx, cas, tree, msg); err != nil {
		return nil, err
	}
	t, err := merkle.FromProto(msg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	return read(ctx, cas, py, t)
}

// believe returns the digest of the Tree that a result names, if one of our hosts has signed it.
func (s *Share) believe(action digest.Digest, ar *repb.ActionResult) (digest.Digest, error) {
	for _, out := range ar.GetOutputDirectories() {
		if out.GetPath() != output {
			continue
		}
		tree, err := digest.FromProto(out.GetTreeDigest())
		if err != nil {
			return tree, fmt.Errorf("%w: %w", errRefused, err)
		}
		if ar.GetExitCode() != 0 || !s.key.signed(ar.GetStdoutRaw(), action, tree) {
			return tree, fmt.Errorf("%w: the ActionResult of %s is not signed with this key", errRefused, action)
		}
		return tree, nil
	}
	return digest.Digest{}, fmt.Errorf("%w: the ActionResult of %s has no %s", errRefused, action, output)
}

// read returns the files of a tree of bytecode.
func read(ctx context.Context, cas cache.CAS, py *venv.Interpreter, t *merkle.Tree) (map[string][]byte, error) {
	files := map[string][]byte{}
	var names []string
	var ds []digest.Digest
	total := int64(0)
	for name, d := range t.Files() {
		total += d.Size()
		if d.Size() > maxFile || total > maxTotal || len(names) == maxFiles {
			return nil, fmt.Errorf("%w: the tree %s is too large", errRefused, t.Root())
		}
		names, ds = append(names, name), append(ds, d)
	}
	magic, err := hex.DecodeString(py.Magic)
	if err != nil {
		return nil, err
	}
	var failed error
	err = cache.GetAll(ctx, cas, ds, maxFile, func(i int, data []byte, err error) {
		if err == nil && !bytes.HasPrefix(data, magic) {
			err = fmt.Errorf("%w: %s is not the bytecode of Python %s", errRefused, names[i], py.Version)
		}
		failed = errors.Join(failed, err)
		files[names[i]] = bytes.Clone(data)
	})
	return files, errors.Join(err, failed)
}

// uploadBytes is how much is in memory, and in one request, while bytecode is uploaded.
const uploadBytes = 8 << 20

// Upload puts the bytecode of a wheel that Compile has written below dir into the cache, so that other hosts have it: what the
// result reaches, then the result.
func (s *Share) Upload(ctx context.Context, py *venv.Interpreter, w venv.Wheel, dir string) {
	if err := s.upload(ctx, py, w, dir); err != nil {
		s.tell(ctx, cannotUpload, err)
	}
}

func (s *Share) upload(ctx context.Context, py *venv.Interpreter, w venv.Wheel, dir string) error {
	action, blobs, err := plan(w, py, s.key)
	if err != nil {
		return err
	}
	cas, ac, err := s.connect(ctx)
	if err != nil {
		return err
	}
	u := &upload{cas: cas, dir: dir}
	if err := u.files(ctx); err != nil {
		return err
	}
	t, err := u.tree.Build()
	if err != nil {
		return err
	}
	tree, td, err := digest.Marshal(t.Proto())
	if err != nil {
		return err
	}
	for d, data := range t.Blobs() {
		blobs = append(blobs, cache.Blob{Digest: d, Data: data})
	}
	if err := cache.PutAll(ctx, cas, append(blobs, cache.Blob{Digest: td, Data: tree})); err != nil {
		return err
	}
	return ac.UpdateActionResult(ctx, action, &repb.ActionResult{
		OutputDirectories: []*repb.OutputDirectory{{Path: output, TreeDigest: td.Proto(), RootDirectoryDigest: t.Root().Proto()}},
		StdoutRaw:         s.key.sign(action, td),
	})
}

// upload collects and stores files of a tree.
type upload struct {
	cas   cache.CAS
	dir   string
	tree  merkle.Builder
	batch []cache.Blob
	size  int
}

func (u *upload) files(ctx context.Context) error {
	err := filepath.WalkDir(u.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Dir(p) == u.dir {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(u.dir, p)
		if err != nil {
			return err
		}
		d := digest.FromBytes(data)
		if err := u.tree.File(filepath.ToSlash(rel), d); err != nil {
			return err
		}
		u.batch, u.size = append(u.batch, cache.Blob{Digest: d, Data: data}), u.size+len(data)
		if u.size < uploadBytes {
			return nil
		}
		return u.flush(ctx)
	})
	return errors.Join(err, u.flush(ctx))
}

func (u *upload) flush(ctx context.Context) error {
	batch := u.batch
	u.batch, u.size = nil, 0
	return cache.PutAll(ctx, u.cas, batch)
}
