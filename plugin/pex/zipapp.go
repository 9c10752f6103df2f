package pex

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// member is one file of a zipapp: a blob, or bytes made here.
type member struct {
	digest  digest.Digest
	content []byte
}

// exportZipapp writes one executable file with the wheels of deps and the sources of source. Python cannot follow a
// symlink in a zip: each becomes a copy of what it leads to.
func exportZipapp(ctx context.Context, cas cache.CAS, deps, source *merkle.Tree, out string) error {
	members := map[string]member{}
	for p, d := range deps.Files() {
		if strings.HasPrefix(p, depsDir+"/") {
			members[p] = member{digest: d}
		}
	}
	for p, d := range source.Files() {
		members[p] = member{digest: d}
	}
	if err := copyLinks(members, source); err != nil {
		return err
	}
	if err := mergeEntry(ctx, cas, deps, source, members); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(writeZipapp(ctx, cas, members, f), f.Chmod(0o755), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}

// copyLinks puts copies in place of the symlinks, those that lead to other symlinks after these. A link that leads
// nowhere, or in a circle, is refused: what is imported by it could not be.
func copyLinks(members map[string]member, source *merkle.Tree) error {
	left := map[string]string{}
	for p, target := range source.Symlinks() {
		if p != linkFile {
			left[p] = path.Join(path.Dir(p), target)
		}
	}
	for len(left) > 0 {
		done := 0
		for _, p := range slices.Sorted(maps.Keys(left)) {
			if throughLink(left, left[p]) || !copyLink(members, p, left[p]) {
				continue
			}
			delete(left, p)
			done++
		}
		if done == 0 {
			p := slices.Sorted(maps.Keys(left))[0]
			return fmt.Errorf("the symlink %s leads to %s, which is not in the project: a zipapp cannot hold it", p, left[p])
		}
	}
	return nil
}

// throughLink reports whether a path is, lies below or lies above a symlink that is still to be copied.
func throughLink(links map[string]string, p string) bool {
	for l := range links {
		if p == l || strings.HasPrefix(p, l+"/") || strings.HasPrefix(l, p+"/") {
			return true
		}
	}
	return false
}

// copyLink puts what is at target, a file or a directory, at p too; false if there is nothing.
func copyLink(members map[string]member, p, target string) bool {
	found := map[string]member{}
	for name, m := range members {
		if name == target {
			found[p] = m
		} else if rest, ok := strings.CutPrefix(name, target+"/"); ok {
			found[p+"/"+rest] = m
		}
	}
	maps.Copy(members, found)
	return len(found) > 0
}

// mergeEntry gives the zipapp one PEX-INFO for both PEXes. pex unpacks a zipapp below a name that follows from it, so
// it has to tell any two contents apart: code_hash stands for the sources, distributions for the wheels.
func mergeEntry(ctx context.Context, cas cache.CAS, deps, source *merkle.Tree, members map[string]member) error {
	info, err := readInfoOf(ctx, cas, deps)
	if err != nil {
		return err
	}
	sourceInfo, err := readInfoOf(ctx, cas, source)
	if err != nil {
		return err
	}
	info.CodeHash, info.BuildProperties = sourceInfo.CodeHash, sourceInfo.BuildProperties
	content, err := info.seal()
	if err != nil {
		return err
	}
	members[infoFile] = member{content: content}
	return nil
}

func writeZipapp(ctx context.Context, cas cache.CAS, members map[string]member, f *os.File) error {
	main := members[mainFile]
	b, err := cache.ReadBlob(ctx, cas, main.digest, maxBootstrap)
	if err != nil {
		return err
	}
	shebang, _, _ := strings.Cut(string(b), "\n")
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err := w.WriteString(shebang + "\n"); err != nil {
		return err
	}
	z := newStoredZip(w)
	z.w.SetOffset(int64(len(shebang) + 1))
	names := map[string][]byte{}
	for name := range members {
		names[name] = nil
	}
	for _, name := range withDirectories(names) {
		if err := writeMember(ctx, cas, z, name, members[name]); err != nil {
			return err
		}
	}
	return errors.Join(z.close(), w.Flush())
}

func writeMember(ctx context.Context, cas cache.CAS, z *storedZip, name string, m member) error {
	mode := os.FileMode(0o755)
	if slices.Contains([]string{infoFile, importFile}, name) {
		mode = 0o644
	}
	if m.digest.IsZero() {
		return z.add(name, m.content, mode)
	}
	r, err := cas.Get(ctx, m.digest)
	if err != nil {
		return err
	}
	defer r.Close()
	return z.addReader(name, r, mode)
}
