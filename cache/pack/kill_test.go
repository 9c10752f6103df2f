package pack

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
)

// TestMain is also the process that TestKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("PEXPRESS_TEST_PACK"); dir != "" {
		seed, _ := strconv.ParseUint(os.Getenv("PEXPRESS_TEST_SEED"), 10, 64)
		if err := write(dir, seed); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// killBlob is the blob of a number, of a size that depends on it.
func killBlob(n uint64) []byte {
	sizes := []int{100, 1000, 30_000, smallBlob, smallBlob + 1, 700_000}
	return random(n, sizes[n%uint64(len(sizes))])
}

// write puts blobs and says on standard output which are acknowledged, until it is killed.
func write(dir string, seed uint64) error {
	s, err := Open(dir, Options{MaxBytes: 96 << 20})
	if err != nil {
		return err
	}
	c, err := s.Namespace("")
	if err != nil {
		return err
	}
	var g errgroup.Group
	for w := range uint64(8) {
		g.Go(func() error {
			for i := uint64(0); ; i++ {
				n := seed<<16 + w<<12 + i
				if _, err := cache.PutBlob(context.Background(), c, killBlob(n)); err != nil {
					return err
				}
				if _, err := fmt.Printf("%d\n", n); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// TestKill kills a writer again and again: what it said was stored last is there, and nothing is damaged.
func TestKill(t *testing.T) {
	rounds := 8
	if os.Getenv("PEXPRESS_SOAK") != "" {
		rounds = 200
	}
	dir := t.TempDir()
	var newest []uint64
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "PEXPRESS_TEST_PACK="+dir, "PEXPRESS_TEST_SEED="+strconv.Itoa(round+1))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		timer := time.AfterFunc(time.Duration(20+rand.IntN(200))*time.Millisecond, func() { cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if n, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
				newest = append(newest, n)
			}
		}
		timer.Stop()
		require.ErrorContains(t, cmd.Wait(), "killed")
		newest = newest[max(0, len(newest)-100):] // far fewer than fit
		s, err := Open(dir, Options{MaxBytes: 96 << 20})
		require.NoError(t, err)
		c := ns(t, s, "")
		for _, n := range newest {
			requireBlob(t, c, killBlob(n))
		}
		rep, err := s.Verify(t.Context())
		require.NoError(t, err)
		require.Empty(t, rep.Damaged)
		require.NoError(t, s.Close())
	}
	require.NotEmpty(t, newest)
}

// TestStart opens a store of many entries, made by the store itself.
func TestStartSoak(t *testing.T) {
	if os.Getenv("PEXPRESS_SOAK") == "" {
		t.Skip("5 million entries: make soak")
	}
	const n, batch = 5_000_000, 5000
	dir := t.TempDir()
	s := openAt(t, dir, Options{MaxBytes: 64 << 30})
	c := ns(t, s, "")
	for from := uint64(0); from < n; from += batch {
		blobs := make([]cache.Blob, batch)
		for i := range blobs {
			b := []byte(strconv.FormatUint(from+uint64(i), 10))
			blobs[i] = blobOf(b)
		}
		require.NoError(t, c.PutMany(t.Context(), blobs))
	}
	require.NoError(t, s.Close())
	begin := time.Now()
	s = openAt(t, dir, Options{MaxBytes: 64 << 30})
	c = ns(t, s, "")
	rc, err := c.Get(t.Context(), blobOf([]byte("4999999")).Digest)
	require.NoError(t, err)
	b, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.True(t, bytes.Equal([]byte("4999999"), b))
	slots := 0
	for i := range s.table.parts {
		slots += len(s.table.parts[i].slots)
	}
	t.Logf("%d entries: %s from open to the first answer, %d bytes of index an entry", s.Stats().Entries, time.Since(begin), 40*slots/n)
	require.Equal(t, n, s.Stats().Entries)
}
