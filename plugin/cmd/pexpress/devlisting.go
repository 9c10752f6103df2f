package main

import (
	"context"
	"errors"
	"path/filepath"
)

// watch sets what is watched: the directories that source.pex, the lock and the outputs come from. With anything every change
// counts, because what builds read could not be listed.
func (d *dev) watch(ctx context.Context, anything bool) error {
	for range 100 { // directories that come while they are listed
		dirs, files, err := d.listing(ctx)
		if err != nil || anything {
			files = nil // the build says what is wrong, and any change may mend it
		}
		more, err := d.watcher.watch(dirs, files)
		if err != nil {
			return unavailableError{err}
		}
		if !more {
			break
		}
	}
	return nil
}

// listing returns the directories and files that builds of the locations read.
func (d *dev) listing(ctx context.Context) (dirs []string, files map[string]bool, err error) {
	dirs, files = []string{d.app.dir}, map[string]bool{}
	if d.session == nil {
		return dirs, files, nil
	}
	p := d.session.project
	locs, err := d.session.locations(d.opts.names)
	for _, loc := range locs {
		lock := filepath.Join(p.Dir, loc.Lock)
		dirs, files[lock] = append(dirs, loc.Dir, filepath.Dir(lock)), true
		src, serr := p.Sources(ctx, loc)
		if serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		dirs = append(dirs, src.Dirs...)
		for _, f := range src.Files {
			files[f.Abs] = true
		}
	}
	for _, o := range p.Outputs {
		found, _, oerr := p.OutputFiles(ctx, o)
		err = errors.Join(err, oerr)
		for _, f := range found {
			dirs, files[f.Abs] = append(dirs, filepath.Dir(f.Abs)), true
		}
	}
	if err == nil && !d.said {
		d.said = true
		d.show.say("watching", map[string]any{"directory": p.Dir, "files": len(files), "locations": len(locs)},
			"watching %s: %s, %s", p.Dir, count(len(files), "file"), count(len(locs), "location"))
	}
	return dirs, files, err
}
