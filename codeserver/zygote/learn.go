package zygote

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pexpress/pexpress/cache/durable"
)

// record is what this host knows of a Key.
type record struct {
	Key string `json:"key"`
	Learned
	// Failed are modules that could not be imported: those that only look as if they were of the dependencies.
	Failed []string `json:"failed,omitempty"`
	// Bad says why versions are not forked at all.
	Bad string `json:"bad,omitempty"`
	// BadAt is when that was found out.
	BadAt time.Time `json:"bad_at,omitzero"`
	// Facts are those of a version that started by itself, until a forked one is Compared with it.
	Facts    map[string]string `json:"facts,omitempty"`
	Compared bool              `json:"compared,omitempty"`
}

// recordSuffix is that of the files of records.
const recordSuffix = ".json"

func (p *Pool) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(p.dir, hex.EncodeToString(sum[:16])+recordSuffix)
}

// get returns what is known of a key. p.mu is held.
func (p *Pool) get(key string) *warm {
	w := p.keys[key]
	if w == nil {
		w = &warm{parents: map[string]*parent{}, latest: map[string]string{}, suspects: map[string]bool{}}
		b, err := readUpTo(p.path(key), 4*MaxLearned)
		if err == nil {
			err = json.Unmarshal(b, &w.record)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.log.Warn("what versions import is learned anew", "key", key, "error", err)
		}
		if err != nil || w.Key != key {
			w.record = record{}
		}
		w.Key = key
		w.again = w.Bad != "" // the host, or what it runs, may be another since
		p.keys[key] = w
	}
	return w
}

// knows reports whether it is known what versions import, be it nothing.
func (p *Pool) knows(w *warm) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(w.Modules)+len(w.Failed) > 0
}

// save writes down what is known of a key.
func (p *Pool) save(key string, w *warm) {
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	b, err := json.Marshal(w.record)
	kept := p.keys[key] == w
	p.mu.Unlock()
	if err == nil && kept {
		err = durable.WriteFile(p.path(key), b, 0o600)
	}
	if err != nil {
		p.log.Warn("what versions import is not remembered", "key", key, "error", err)
	}
}

// askTimeout is how long a version waits for what other hosts know.
const askTimeout = 3 * time.Second

// ask asks the exchange once about a key that nothing is known of.
func (p *Pool) ask(ctx context.Context, key string, w *warm) {
	p.mu.Lock()
	asked := w.asked || p.exchange == nil || len(w.Modules) > 0
	w.asked = true
	p.mu.Unlock()
	if asked {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	b, err := p.exchange.Fetch(ctx, key)
	if err != nil {
		p.log.Info("what versions import is not learned from other hosts", "key", key, "error", err)
		return
	}
	if b == nil {
		return
	}
	l, err := ParseLearned(b)
	if err != nil {
		p.log.Warn("what another host says that versions import is ignored", "key", key, "error", err)
		return
	}
	p.mu.Lock()
	w.theirs = b
	w.add(l.Modules)
	for name, why := range l.LeftOut {
		w.leaveOut(name, why)
	}
	n := len(w.Modules)
	p.mu.Unlock()
	p.log.Info("what versions import was learned from another host", "key", key, "modules", n)
	p.save(key, w)
}

// publish tells other hosts what was learned, and is in a zygote, if that is more than they know.
func (p *Pool) publish(key string, w *warm, pt *parent) {
	p.mu.Lock()
	b, err := json.Marshal(w.share(pt.has))
	same := slices.Equal(b, w.theirs)
	p.mu.Unlock()
	if p.exchange == nil || same || err != nil || len(b) > MaxLearned {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	if err := p.exchange.Publish(ctx, key, b); err != nil {
		p.log.Info("other hosts are not told what versions import", "key", key, "error", err)
		return
	}
	p.mu.Lock()
	w.theirs = b
	p.mu.Unlock()
}

// readUpTo returns the beginning of a file.
func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
