package zygote

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// watchIdle ends zygotes that nobody has needed for long, every now and then.
func (p *Pool) watchIdle() {
	tick := time.NewTicker(p.times.idle / 10)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case now := <-tick.C:
			p.endIdle(now)
		}
	}
}

// endIdle ends those. They come back when they are needed.
func (p *Pool) endIdle(now time.Time) {
	p.mu.Lock()
	var end []*Zygote
	for _, w := range p.keys {
		for _, pt := range w.parents {
			if pt.zygote != nil && now.Sub(pt.used) > p.times.idle {
				end = append(end, pt.zygote)
				pt.zygote = nil
			}
		}
	}
	p.mu.Unlock()
	closeAll(end)
}

// end takes all zygotes from a key. p.mu is held.
func (w *warm) end() (end []*Zygote) {
	for _, pt := range w.parents {
		if pt.zygote != nil {
			end = append(end, pt.zygote)
			pt.zygote = nil
		}
	}
	return end
}

func closeAll(zygotes []*Zygote) {
	for _, z := range zygotes {
		if z != nil {
			z.Close()
		}
	}
}

// Keep ends the zygotes that only other locations than these, by key, had versions of, and forgets what is known of other keys.
func (p *Pool) Keep(locations map[string][]string) error {
	p.mu.Lock()
	var end []*Zygote
	kept := map[string]bool{}
	for key := range locations {
		kept[filepath.Base(p.path(key))] = true
	}
	maps.DeleteFunc(p.keys, func(key string, w *warm) bool {
		maps.DeleteFunc(w.latest, func(location, _ string) bool { return !slices.Contains(locations[key], location) })
		end = append(end, w.forget()...)
		return locations[key] == nil
	})
	p.mu.Unlock()
	closeAll(end)
	p.saving.Lock() // one that is being written may be of a key that is gone
	defer p.saving.Unlock()
	entries, err := os.ReadDir(p.dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), recordSuffix) && !kept[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(p.dir, e.Name())))
		}
	}
	return err
}

// Repaired says that files of dependencies were damaged and are not any more: zygotes may have imported them, and what failed
// may not fail again.
func (p *Pool) Repaired() {
	p.mu.Lock()
	p.repairs++ // one that is being made has them perhaps
	var end []*Zygote
	changed := map[string]*warm{}
	for key, w := range p.keys {
		end = append(end, w.end()...)
		if len(w.Failed) > 0 {
			w.Failed, changed[key] = nil, w
		}
		for _, pt := range w.parents {
			pt.broken = false
		}
	}
	p.mu.Unlock()
	closeAll(end)
	for key, w := range changed {
		p.save(key, w)
	}
}

// Wait returns when no zygote is being made.
func (p *Pool) Wait() { p.work.Wait() }

// Close ends all zygotes. Versions go on.
func (p *Pool) Close() {
	p.cancel()
	p.idling.Wait()
	p.late.Wait()
	p.work.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.keys {
		closeAll(w.end())
	}
	p.keys = map[string]*warm{}
}
