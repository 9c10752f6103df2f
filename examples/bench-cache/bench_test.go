package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// null serves the null server and returns its address.
func nullServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = serveNull(l) }()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func short(t *testing.T) options {
	return options{
		dir: t.TempDir(), clients: 2, connections: 1, rounds: 1, chunk: 1 << 20, seconds: 0.05, compressible: 0.5,
		prepare: 4, seed: 1, only: "small|10,000|ActionCache",
	}
}

// TestEveryWorkload runs each kind of call against the null server, as such.
func TestEveryWorkload(t *testing.T) {
	o := short(t)
	tg := &target{name: "n", address: nullServer(t), null: true}
	require.NoError(t, tg.connect(2, 1))
	defer tg.close()
	p := newPlan(encoder{chunk: o.chunk}, o.seed, o.compressible, o.prepare<<20)
	p.larges, p.longest = 1, [2]float64{2 << 20, 3 << 20}
	for _, w := range p.workloads() {
		samples, err := runWorkload(t.Context(), o, w, []*target{tg})
		require.NoError(t, err, w.name)
		require.Positive(t, median(samples["n"]).Rate, w.name)
	}
}

// TestWrongAnswersAreFound takes the null server for a real one.
func TestWrongAnswersAreFound(t *testing.T) {
	tg := &target{name: "n", address: nullServer(t)}
	require.NoError(t, tg.connect(1, 1))
	defer tg.close()
	e := encoder{chunk: 1 << 10}
	src := newSource(1, 1, 0.5)
	bs := src.blobs(inBatch, smallSize)
	c, ctx := tg.clients[0], t.Context()
	require.NoError(t, tg.update(ctx, c, e.update(bs), inBatch))
	require.ErrorIs(t, tg.update(ctx, c, e.update(bs[1:]), inBatch-1), errWrong)
	require.NoError(t, tg.readBatch(ctx, c, e.readBatch(bs), bs, false))
	require.ErrorIs(t, tg.readBatch(ctx, c, e.readBatch(bs), bs, true), errWrong)
	require.NoError(t, tg.read(ctx, c, e.read(bs[0]), bs[0].hash, smallSize, false))
	require.ErrorIs(t, tg.read(ctx, c, e.read(bs[0]), bs[0].hash, smallSize, true), errWrong)
	require.ErrorIs(t, tg.read(ctx, c, e.read(bs[0]), bs[0].hash, smallSize+1, false), errWrong)
	require.NoError(t, tg.write(ctx, c, e.write(bs[0]), smallSize))
	big := src.blob(5000)
	require.Len(t, e.write(big), 5)
	require.ErrorIs(t, tg.write(ctx, c, e.write(big), big.size()), errWrong)
	require.NoError(t, tg.find(ctx, c, e.missing(bs), 0))
	require.ErrorIs(t, tg.find(ctx, c, e.missing(bs), 1), errWrong)
}

func TestTargetAndJSON(t *testing.T) {
	o := short(t)
	o.only, o.target, o.json = "batched small writes", "grpc://"+nullServer(t), filepath.Join(t.TempDir(), "out.json")
	var out bytes.Buffer
	require.NoError(t, bench(t.Context(), o, &out))
	require.Contains(t, out.String(), "batched small writes")
	b, err := os.ReadFile(o.json)
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(b, &r))
	require.Len(t, r.Rows, 1)
	require.Len(t, r.Rows[0].Samples[o.target], 1)
	o.target = "grpc://127.0.0.1:1"
	require.ErrorContains(t, bench(t.Context(), o, &out), "BatchUpdateBlobs")
}

func TestSizesAreRealistic(t *testing.T) {
	src := newSource(1, 1, 0.5)
	var kib, ten int
	const n = 20_000
	for range n {
		s := src.realistic()
		if s < 1<<10 {
			kib++
		}
		if s < 10<<10 {
			ten++
		}
	}
	require.InDelta(t, 0.667, float64(kib)/n, 0.02)
	require.InDelta(t, 0.86, float64(ten)/n, 0.02)
}
