package pex

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // what pex names its bootstrap by; nothing here trusts it
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/plugin"
)

// The output of a bootstrap Action: pex's own runtime, taken from a pex wheel.
const (
	runtimeDir = "runtime"        // the files of .bootstrap
	zipFile    = "runtime.zip"    // the same as one zip, as the packed layout has it
	factsFile  = "bootstrap.json" // facts
)

// facts are what PEX-INFO says of a bootstrap.
type facts struct {
	Version string `json:"pex_version"`
	Hash    string `json:"bootstrap_hash"`
}

// bootstrap is what the PEXes need to know of the runtime that they carry.
type bootstrap struct {
	facts
	boot string // the source of pex_boot.py, the head of every __main__.py
}

// wheelRuntime is the runtime in a pex wheel: the selection that pex_builder.py makes of its own files
// (PEXBuilder._prepare_bootstrap and vendor.vendor_runtime in pex 2.105.2).
type wheelRuntime struct {
	facts
	files map[string][]byte // by path below .bootstrap
}

// unpackBootstrap is the bootstrap Action.
func (c *composer) unpackBootstrap(ctx context.Context, cas cache.CAS) error {
	if len(c.wheels) != 1 {
		return fmt.Errorf("%w: a bootstrap is made of one pex wheel, not of %d", plugin.ErrInvalidAction, len(c.wheels))
	}
	wheel, err := cache.ReadBlob(ctx, cas, c.wheels[0].Digest, maxBootstrap)
	if err != nil {
		return fmt.Errorf("%w: %w", plugin.ErrInputUnreadable, err)
	}
	r, err := openRuntime(c.wheels[0].Name, wheel)
	if err != nil {
		return fmt.Errorf("%w: the bootstrap %s is not a pex wheel: %w", plugin.ErrInvalidAction, c.wheels[0].Name, err)
	}
	for name, content := range r.files {
		if err := c.file(runtimeDir+"/"+name, content); err != nil {
			return err
		}
	}
	zipped, err := r.zip()
	if err != nil {
		return err
	}
	if err := c.file(zipFile, zipped); err != nil {
		return err
	}
	content, err := json.Marshal(r.facts)
	if err != nil {
		return err
	}
	return c.file(factsFile, content)
}

const bootFile = "pex/pex_boot.py"

// bootstrapPackages are the packages of pex that its runtime consists of, in the order in which pex hashes them.
var bootstrapPackages = []string{"cache", "fetcher", "fs", "repl", "third_party", "venv", "windows"}

// vendoredModules are the top-level modules that the runtime takes from pex's vendored distributions.
var vendoredModules = []string{"appdirs", "attr", "colors", "packaging", "pyparsing", "pkg_resources"}

func openRuntime(name string, wheel []byte) (*wheelRuntime, error) {
	parts := strings.Split(name, "-")
	if len(parts) < 5 || parts[0] != "pex" {
		return nil, fmt.Errorf("its name is %.120q", name)
	}
	z, err := zip.NewReader(bytes.NewReader(wheel), int64(len(wheel)))
	if err != nil {
		return nil, err
	}
	z.RegisterDecompressor(zip.Deflate, func(r io.Reader) io.ReadCloser { return flate.NewReader(r) })
	b := &wheelRuntime{facts: facts{Version: parts[1]}, files: map[string][]byte{}}
	if err := b.read(z); err != nil {
		return nil, err
	}
	if _, ok := b.files[bootFile]; !ok {
		return nil, fmt.Errorf("it has no %s", bootFile)
	}
	b.Hash = b.sum()
	return b, nil
}

// read unpacks the runtime's members, on all processors: it is most of the work of a build.
func (b *wheelRuntime) read(z *zip.Reader) error {
	total, seen := int64(0), map[string]bool{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range z.File {
		if !runtimeFile(f.Name) && !vendoredFile(f.Name) {
			continue
		}
		if seen[f.Name] {
			return errors.Join(fmt.Errorf("it has %s twice", f.Name), g.Wait())
		}
		seen[f.Name] = true
		if total += int64(min(f.UncompressedSize64, maxBootstrap+1)); total > maxBootstrap {
			return errors.Join(fmt.Errorf("its runtime is larger than %d bytes", maxBootstrap), g.Wait())
		}
		g.Go(func() error {
			content, err := readMember(f)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			b.files[f.Name] = content
			return nil
		})
	}
	return g.Wait()
}

func readMember(f *zip.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, f.UncompressedSize64)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	// The checksum is checked when the end is read.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, err
	}
	return b, nil
}

// runtimeFile reports whether a member is one of pex's own runtime files: those at the root of package pex, and its
// runtime packages.
func runtimeFile(name string) bool {
	rest, ok := strings.CutPrefix(name, "pex/")
	if !ok || compiled(name) {
		return false
	}
	dir, _, nested := strings.Cut(rest, "/")
	return rest != "" && (!nested || slices.Contains(bootstrapPackages, dir)) && !strings.HasSuffix(name, "/")
}

// vendoredFile reports whether a member belongs to a vendored module of the runtime, or is an __init__.py on the way.
func vendoredFile(name string) bool {
	const vendored = "pex/vendor/_vendored/"
	if name == "pex/vendor/__init__.py" || name == vendored+"__init__.py" {
		return true
	}
	rest, ok := strings.CutPrefix(name, vendored)
	if !ok || compiled(name) || strings.HasSuffix(name, "/") {
		return false
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 2 {
		return false
	}
	module := strings.TrimSuffix(parts[1], ".py")
	if len(parts) > 2 {
		module = parts[1]
	}
	return parts[1] == "__init__.py" && hasModules(parts[0]) || slices.Contains(vendoredModules, module)
}

// hasModules reports whether a vendored distribution is one that the runtime takes modules from.
func hasModules(dist string) bool {
	return slices.Contains([]string{"ansicolors", "appdirs", "attrs", "setuptools"}, dist) || strings.HasPrefix(dist, "packaging_")
}

func compiled(name string) bool {
	return strings.HasSuffix(name, ".pyc") || strings.HasSuffix(name, ".pyo") || strings.Contains(name, "/__pycache__/")
}

// sum returns pex's bootstrap_hash: the sha1 of the runtime's own files in the order of a sorted walk. Vendored files,
// and pex/__init__.py, which pex copies along with them, are not part of it.
func (b *wheelRuntime) sum() string {
	dirs := map[string][]string{}
	for name := range b.files {
		if runtimeFile(name) && name != "pex/__init__.py" {
			dirs[path.Dir(name)] = append(dirs[path.Dir(name)], name)
		}
	}
	h := sha1.New() //nolint:gosec // as above
	for _, dir := range walkOrder(dirs) {
		slices.Sort(dirs[dir])
		for _, name := range dirs[dir] {
			h.Write(b.files[name])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// walkOrder sorts directories as a walk meets them: a directory before what is below it.
func walkOrder(dirs map[string][]string) []string {
	var order []string
	for dir := range dirs {
		order = append(order, dir)
	}
	slices.SortFunc(order, func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
	return order
}

// zip returns the runtime as one zip, byte for byte what `pex --no-compress` writes as .bootstrap.
func (b *wheelRuntime) zip() ([]byte, error) {
	size := 0
	for _, content := range b.files {
		size += len(content) + 200
	}
	buf := bytes.NewBuffer(make([]byte, 0, size))
	w := newStoredZip(buf)
	for _, name := range withDirectories(b.files) {
		if err := w.add(name, b.files[name], 0o644); err != nil {
			return nil, err
		}
	}
	if err := w.close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// withDirectories returns the names of the files and, ending in a slash, of the directories above them, sorted.
func withDirectories(files map[string][]byte) []string {
	seen := map[string]bool{}
	for name := range files {
		for seen[name] = true; strings.Contains(strings.TrimSuffix(name, "/"), "/"); seen[name] = true {
			name = path.Dir(strings.TrimSuffix(name, "/")) + "/"
		}
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
