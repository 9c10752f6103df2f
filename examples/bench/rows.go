package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// deployed returns the address of the last deploy.
func deployed(events []event) string {
	for _, e := range events {
		if e.Event == "deployed" {
			return e.Address
		}
	}
	return ""
}

func (b *bench) deployUnchanged() (row, error) {
	// Measured alone, this row begins with a codeserver that serves nothing: the first deploy is one of a new host.
	if _, err := b.pexpress("project", "deploy"); err != nil {
		return row{}, err
	}
	var ours sample
	for range 3 * b.rounds {
		b.noise()
		start := time.Now()
		if _, err := b.pexpress("project", "deploy"); err != nil {
			return row{}, err
		}
		ours = append(ours, time.Since(start))
	}
	return row{"deploy, nothing changed", ours.String(), "", "", "<= 50 ms"}, nil
}

// depsDigest makes deps.pex for targets that were not built for before: the same wheels, another Action.
func (b *bench) depsDigest() (row, error) {
	var ours, inside, peer sample
	for i := range b.rounds {
		b.noise()
		start := time.Now()
		events, err := b.pexpress("project", "build", "--platform", fmt.Sprintf("manylinux_2_%d_x86_64", 40+b.count+i))
		if err != nil {
			return row{}, err
		}
		ours = append(ours, time.Since(start))
		var steps float64
		for _, e := range events {
			if e.Stage == "plan" || e.Output == "deps.pex" {
				steps += e.Milliseconds
			}
		}
		inside = append(inside, time.Duration(steps*float64(time.Millisecond)))
		out := b.path("packed.pex")
		if err := os.RemoveAll(out); err != nil {
			return row{}, err
		}
		start = time.Now()
		if err := b.shell("", b.python(), "-m", "pex", "-r", b.path("project/requirements.txt"), "--no-pypi", "--find-links",
			b.path("wheels"), "--intransitive", "--layout", "packed", "--no-pre-install-wheels", "-o", out); err != nil {
			return row{}, err
		}
		peer = append(peer, time.Since(start))
	}
	return row{
		"lock to deps.pex digest, wheels in the cache (plan and build of an Action that is new)",
		ours.String() + ", the whole command; plan and build in it " + inside.String(), peer.String() + ": pex --layout packed --no-pre-install-wheels, its caches warm", times(ours, peer),
		"<= 50 ms, >= 100 x",
	}, nil
}

const emptyLock = "lock-version = \"1.0\"\ncreated-by = \"bench\"\nrequires-python = \">=3.11\"\npackages = []\n"

// manyFiles edits one of 10,000 files.
func (b *bench) manyFiles() (row, error) {
	project := b.path("many")
	if err := os.RemoveAll(project); err != nil {
		return row{}, err
	}
	write := func(name, content string) error {
		path := filepath.Join(project, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(content), 0o644)
	}
	if err := write("pylock.toml", emptyLock); err != nil {
		return row{}, err
	}
	if err := write("pexpress.toml", "python = \"3.11\"\n"); err != nil {
		return row{}, err
	}
	for i := range 10_000 {
		if err := write(fmt.Sprintf("app/p%02d/m%04d.py", i%100, i), fmt.Sprintf("VALUE = %d\n", i)); err != nil {
			return row{}, err
		}
	}
	if _, err := b.pexpress("many", "build"); err != nil {
		return row{}, err
	}
	var ours sample
	for i := range 3 * b.rounds {
		b.noise()
		if err := write("app/p07/m0007.py", fmt.Sprintf("VALUE = %d\nEDIT = %d\n", 7, i)); err != nil {
			return row{}, err
		}
		start := time.Now()
		if _, err := b.pexpress("many", "build"); err != nil {
			return row{}, err
		}
		ours = append(ours, time.Since(start))
	}
	return row{"source.pex of 10,000 files, one edited", ours.String(), "", "", "<= 100 ms"}, nil
}

// bump replaces one wheel of the lock by another release of it.
func (b *bench) bump() (row, error) {
	const name, before, after = "six", "1.17.0", "1.16.0"
	project := b.path("bump")
	if err := os.RemoveAll(project); err != nil {
		return row{}, err
	}
	if err := os.CopyFS(project, os.DirFS(b.path("project"))); err != nil {
		return row{}, err
	}
	build := func(version string) ([]event, error) {
		content, err := os.ReadFile(b.path("project/requirements.txt"))
		if err != nil {
			return nil, err
		}
		pinned := withoutHashes(string(content), name) + name + "==" + version + "\n"
		if err := os.WriteFile(b.path("bump.txt"), []byte(pinned), 0o644); err != nil {
			return nil, err
		}
		if _, err := b.pexpress("bump", "lock", "../bump.txt"); err != nil {
			return nil, err
		}
		return b.pexpress("bump", "build")
	}
	if _, err := build(before); err != nil {
		return row{}, err
	}
	events, err := build(after)
	if err != nil {
		return row{}, err
	}
	var shipped, wheel int64
	for _, e := range events {
		switch {
		case e.Event == "stored":
			shipped = e.Bytes
		case e.Stage == "fetch wheels":
			wheel = e.Bytes
		}
	}
	return row{
		"bytes shipped when one wheel of 51 is bumped", fmt.Sprintf("%d bytes, of which the wheel %d", shipped, wheel), "",
		fmt.Sprintf("the wheel + %.1f KiB", float64(shipped-wheel)/1024), "the wheel + 64 KiB",
	}, nil
}
