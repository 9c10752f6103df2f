package sandbox

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// View is what a process is to see of the host.
type View struct {
	// Hidden are directories of which only what is in Shown is to be seen.
	Hidden []string
	// Shown are files and directories that the process needs. Where they are not hidden, and users other than root reach
	// them, nothing has to be done for that.
	Shown []Shown
	// Scratch is how many bytes the process may write to /tmp, /var/tmp and /dev/shm together.
	Scratch int64
}

// Shown is a file or directory of the host that a process sees.
type Shown struct {
	Path     string
	Source   string // what is seen there; Path itself if empty
	Writable bool   // else it is read only
}

// scratch are the directories that everybody may write to, with their names in the file system that stands for them.
var scratch = []struct{ at, part string }{{"/tmp", "tmp"}, {"/var/tmp", "var"}, {"/dev/shm", "shm"}}

// Plan returns the mounts that make a view for a user.
func Plan(user int, v View) *Spec {
	hidden := slices.Clone(v.Hidden)
	for _, s := range v.Shown {
		if dir := closed(s.Path); dir != "" {
			hidden = append(hidden, dir)
		}
	}
	var mounts []Mount
	for _, dir := range scratch {
		if st, err := os.Lstat(dir.at); err != nil || !st.IsDir() {
			continue
		}
		m := Mount{At: dir.at, Part: dir.part}
		if len(mounts) == 0 {
			m.Size = max(v.Scratch, leastScratch)
			for _, s := range scratch {
				m.Parts = append(m.Parts, s.part)
			}
		}
		mounts = append(mounts, m)
	}
	// The outer ones first: what is in them is hidden already.
	slices.SortFunc(hidden, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	for _, dir := range hidden {
		if !slices.ContainsFunc(mounts, func(m Mount) bool { _, in := below(m.At, dir); return in }) {
			mounts = append(mounts, Mount{At: dir})
		}
	}
	var shown []Mount
	for _, s := range v.Shown {
		found := false
		for i := range mounts {
			rel, in := below(mounts[i].At, s.Path)
			if !in {
				continue
			}
			found = true
			if st, err := os.Stat(cmp.Or(s.Source, s.Path)); err == nil && !st.IsDir() {
				mounts[i].Files = append(mounts[i].Files, rel)
			} else {
				mounts[i].Dirs = append(mounts[i].Dirs, rel)
			}
		}
		if found {
			shown = append(shown, Mount{At: s.Path, Source: cmp.Or(s.Source, s.Path), Writable: s.Writable})
		}
	}
	return &Spec{User: user, Mounts: slices.Concat([]Mount{{At: "/proc", Proc: true}}, mounts, shown)}
}

// leastScratch is enough for what programs write there without being asked to.
const leastScratch = 1 << 20

// closed returns the first directory above a path that users other than its own cannot pass, "" if there is none.
func closed(path string) string {
	dir := ""
	for _, part := range strings.Split(filepath.Dir(path), string(filepath.Separator)) {
		dir += "/" + part
		if st, err := os.Stat(dir); err == nil && st.Mode().Perm()&1 == 0 {
			return filepath.Clean(dir)
		}
	}
	return ""
}
