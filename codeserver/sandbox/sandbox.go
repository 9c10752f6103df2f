// Package sandbox shuts a process into a user of its own and a file system of its own: it sees the host's, read only,
// without the directories that are nobody else's business, and with those that it needs put back; /tmp, /dev/shm and /proc
// show nothing of other users. It has no capability and gets none.
//
// It is done by root, in one of two ways. A process that is started by itself goes through [Wrap]: the codeserver's binary
// is executed first, enters, and executes the program. One that was forked by a process without any privilege cannot do
// that: it makes a user namespace, in which it may change its user and mount, and [Admit] maps to that namespace the one
// user that it may become, and hands it what it is to mount. Both get the same mounts, made by the same code.
package sandbox

import "path/filepath"

// Spec is what a process is shut into.
type Spec struct {
	// User is the process's user and group, and the only one of either.
	User   int     `json:"user"`
	Mounts []Mount `json:"mounts"`
}

// Mount is one thing that a process finds in its file system instead of what the host has there.
type Mount struct {
	// At is where.
	At string `json:"at"`
	// Source is a file or directory of the host. Without it, and without Proc and Part, it is an empty file system that
	// nobody can write to.
	Source string `json:"source,omitempty"`
	// Writable lets the process change what is below Source, as far as it is its user's.
	Writable bool `json:"writable,omitempty"`
	// Dirs and Files are made in an empty file system, for other mounts to be put there.
	Dirs  []string `json:"dirs,omitempty"`
	Files []string `json:"files,omitempty"`
	// Part names one of several directories in memory that have Size bytes together. The first mount with a Part says what
	// the Parts are.
	Part  string   `json:"part,omitempty"`
	Parts []string `json:"parts,omitempty"`
	Size  int64    `json:"size,omitempty"`
	// Proc shows the processes of the user alone.
	Proc bool `json:"proc,omitempty"`
}

// below reports whether a path is dir or in it, and how it is called there.
func below(dir, path string) (string, bool) {
	rel, err := filepath.Rel(dir, path)
	if err != nil || rel == ".." || len(rel) > 2 && rel[:3] == "../" {
		return "", false
	}
	return rel, true
}
