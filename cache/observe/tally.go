package observe

import (
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
)

// tally counts what one family of instances does.
type tally struct {
	hits, misses    atomic.Int64 // of ActionResults
	present, absent atomic.Int64 // digests asked for in FindMissing
	reads, gone     atomic.Int64 // blobs read, and not there to be read
	read, written   atomic.Int64 // bytes
	updates         atomic.Int64 // of ActionResults

	mu        sync.RWMutex
	mnemonics map[string]*mnemonic
}

// mnemonic counts the lookups of one kind of action.
type mnemonic struct{ hits, misses atomic.Int64 }

// tallies are those of all instances.
type tallies struct {
	mu     sync.RWMutex
	byName map[string]*tally
}

func (ts *tallies) init() { ts.byName = map[string]*tally{} }

func (ts *tallies) of(family string) *tally {
	ts.mu.RLock()
	t := ts.byName[family]
	ts.mu.RUnlock()
	if t != nil {
		return t
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t = ts.byName[family]; t == nil {
		t = &tally{mnemonics: map[string]*mnemonic{}}
		ts.byName[family] = t
	}
	return t
}

// each calls f for every tally. The order is any.
func (ts *tallies) each(f func(family string, t *tally)) {
	ts.mu.RLock()
	defer ts.mu.RUnlock()
	for name, t := range ts.byName {
		f(name, t)
	}
}

// maxMnemonics bounds what a client can make up: rules have a few dozen kinds of actions. Others count as one.
const (
	maxMnemonics   = 150
	otherMnemonics = "(other)"
	noMnemonic     = "(none)"
)

func (t *tally) mnemonic(name string) *mnemonic {
	name = cleanMnemonic(name)
	t.mu.RLock()
	m := t.mnemonics[name]
	t.mu.RUnlock()
	if m != nil {
		return m
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.mnemonics) >= maxMnemonics {
		name = otherMnemonics
	}
	if m = t.mnemonics[name]; m == nil {
		m = &mnemonic{}
		t.mnemonics[name] = m
	}
	return m
}

// cleanMnemonic cuts a name to what people can read.
func cleanMnemonic(name string) string {
	const limit = 60
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	if name == "" {
		return noMnemonic
	}
	if len(name) > limit {
		name = strings.ToValidUTF8(name[:limit], "") + "…"
	}
	return name
}
