package s3

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
)

// sample is a file with one of everything.
func sample() *entries {
	d := digest.FromBytes([]byte("blob"))
	return &entries{
		packs:      []packRef{{id: id{1, 2, 3}, size: 12345, date: 1_700_000_000}},
		namespaces: []string{"", "main"},
		principals: []string{"ci"},
		all: []entry{
			{key: makeKey(1, kindBlob, d), offset: 77, used: 5},
			{key: makeKey(0, kindAction, digest.BLAKE3.FromBytes([]byte("action"))), used: 6, target: target{result: d, time: 9}},
		},
	}
}

func TestEntriesRoundTrip(t *testing.T) {
	got, err := decodeEntries(sample().encode())
	require.NoError(t, err)
	require.Equal(t, sample(), got)
	b := sample().encode()
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 0x10
		_, err := decodeEntries(c)
		require.ErrorIs(t, err, errFormat, "byte %d", i)
		_, err = decodeEntries(b[:i])
		require.ErrorIs(t, err, errFormat)
	}
}

// seal gives what a fuzzer made up the checksum without which it would get nowhere.
func seal(body []byte) []byte {
	e := append([]byte(entriesMagic), body...)
	return appendSum(e)
}

func FuzzEntries(f *testing.F) {
	b := sample().encode()
	f.Add(b[4 : len(b)-8])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := decodeEntries(seal(body))
		if err != nil {
			require.ErrorIs(t, err, errFormat)
			return
		}
		again, err := decodeEntries(e.encode())
		require.NoError(t, err)
		require.Equal(t, e, again)
		x := newIndex()
		x.add(e)
		newFold().add(e)
	})
}

func FuzzPack(f *testing.F) {
	blob := []byte("some bytes")
	d := digest.FromBytes(blob)
	p := pointer{result: d, time: 5, principal: "ci"}
	payload := appendPointer(nil, &p)
	b := appendRecord(nil, &header{kindBlob, "main", d, int64(len(blob))}, blob)
	b = appendRecord(b, &header{kindAction, "", d, int64(len(payload))}, payload)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		var whole []byte
		damaged := false
		err := walk(b, func(r scanned, err error) {
			damaged = damaged || err != nil
			if err == nil {
				whole = appendRecord(whole, &r.header, r.payload)
			}
		})
		if err == nil && !damaged {
			require.True(t, bytes.Equal(before, whole), "there is one way to write a pack")
		}
	})
}

func FuzzPointer(f *testing.F) {
	f.Add(appendPointer(nil, &pointer{result: digest.Empty, time: -1, principal: "x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePointer(b)
		if err != nil {
			require.ErrorIs(t, err, errFormat)
			return
		}
		require.Equal(t, b, appendPointer(nil, &p))
	})
}

func FuzzManifest(f *testing.F) {
	m := manifest{
		Version: manifestVersion, Generation: 3, Retention: 10800,
		Runs:  []run{{part: part{ID: id{1}, Entries: 2}, Sources: []id{{2}}}},
		Dying: []dying{{Generation: 2, Packs: ids{{3}, {4}}}}, Roots: []root{{Name: "prod"}}, Rules: []rule{{Principal: "m"}},
	}
	b, err := m.encode()
	require.NoError(f, err)
	f.Add(b[:len(b)-18])
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := decodeManifest(sealManifest(body))
		if err != nil {
			return
		}
		b, err := m.encode()
		require.NoError(t, err)
		again, err := decodeManifest(b)
		require.NoError(t, err)
		c, err := again.encode()
		require.NoError(t, err)
		require.Equal(t, b, c)
		m.condemned()
		m.folded()
		m.objects()
		x := newIndex()
		x.apply(&update{manifest: m})
	})
}
