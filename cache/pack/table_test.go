package pack

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestTable does what a map does, with keys that collide.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, model := newTable(), map[ref]uint64{}
		for range rapid.IntRange(1, 2000).Draw(t, "steps") {
			r := ref{ns: uint16(rapid.IntRange(0, 1).Draw(t, "ns")), class: class(rapid.IntRange(1, 2).Draw(t, "class"))}
			r.key[9] = byte(rapid.IntRange(0, 60).Draw(t, "key")) // the same slot to begin with, and the same part
			if rapid.Bool().Draw(t, "remove") {
				old := table.remove(r)
				want, ok := model[r]
				require.Equal(t, ok, old.class != 0)
				require.Equal(t, want, old.loc)
				delete(model, r)
				continue
			}
			loc := rapid.Uint64().Draw(t, "loc")
			old := table.insert(entry{key: r.key, sizeNS: uint64(r.ns), class: r.class, loc: loc})
			require.Equal(t, model[r], old.loc)
			model[r] = loc
		}
		require.Equal(t, len(model), table.n)
		for r, loc := range model {
			require.Equal(t, loc, table.find(&r).loc)
		}
		n := 0
		table.all(func(e *entry) bool {
			require.Equal(t, model[e.ref()], e.loc)
			n++
			return true
		})
		require.Equal(t, len(model), n)
	})
}

func BenchmarkFind(b *testing.B) {
	table := newTable()
	var keys []ref
	for i := range uint64(1 << 20) {
		r := ref{class: 1}
		binary.LittleEndian.PutUint64(r.key[:], i*0x9e3779b97f4a7c15)
		keys = append(keys, r)
		table.insert(entry{key: r.key, class: 1})
	}
	i := 0
	for b.Loop() {
		if table.find(&keys[(i*7919)&(1<<20-1)]) == nil {
			b.Fatal("not found")
		}
		i++
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(indexMagic))
	f.Add(make([]byte, indexHeader+itemSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		ix, _, err := parseIndex(b)
		if err != nil {
			return
		}
		n := 0
		for it := range ix.items(7) {
			require.Len(t, appendItem(nil, it), itemSize)
			n++
		}
		require.Equal(t, ix.len(), n)
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add(make([]byte, headerSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err == nil {
			require.False(t, r.digest.IsZero())
		}
	})
}
