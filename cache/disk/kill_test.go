package disk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

const (
	// jobEnv makes the test binary a child: "SEED LIMIT" hammers a store until it is killed, "die" is killed in the
	// middle of storing a blob.
	jobEnv = "PEXPRESS_TEST_DISK_JOB"
	dirEnv = "PEXPRESS_TEST_DISK_DIR"
)

func TestMain(m *testing.M) {
	ctx := context.Background()
	var err error
	switch job, dir := os.Getenv(jobEnv), os.Getenv(dirEnv); job {
	case "":
		os.Exit(m.Run())
	case "die":
		err = die(ctx, dir)
	default:
		var seed uint64
		var limit int64
		if _, err = fmt.Sscan(job, &seed, &limit); err == nil {
			err = hammer(ctx, dir, limit, rand.New(rand.NewPCG(seed, 0)))
		}
	}
	fmt.Fprintln(os.Stderr, "child:", err)
	os.Exit(1)
}

func child(job, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), jobEnv+"="+job, dirEnv+"="+dir)
	return cmd
}

// hammered returns the i-th of the blobs that all hammering processes share.
func hammered(i uint64) cache.Blob {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], i)
	r := rand.NewChaCha8(key)
	b := make([]byte, r.Uint64()%(16<<10)+1)
	_, _ = r.Read(b)
	return cache.Blob{Digest: digest.FromBytes(b), Data: b}
}

// hammeredResult is the one result of the i-th Action, whose digest is that of the i-th blob.
func hammeredResult(i uint64) *repb.ActionResult {
	return &repb.ActionResult{StdoutRaw: hammered(i).Data, ExitCode: 1}
}

const hammeredBlobs = 600

// hammer uses the store in every way and prints a line for each blob and result that was acknowledged. The first
// twenty blobs are pinned. It returns only when something is wrong.
func hammer(ctx context.Context, dir string, limit int64, r *rand.Rand) error {
	s, err := Open(dir, Options{MaxBytes: limit})
	if err != nil {
		return err
	}
	for {
		i := r.Uint64N(hammeredBlobs)
		b := hammered(i)
		switch r.IntN(8) {
		case 0, 1, 2:
			if _, err = cache.PutBlob(ctx, s, b.Data); err == nil {
				fmt.Println("blob", i)
			}
		case 3:
			other := hammered((i + 1) % hammeredBlobs)
			if err = s.PutMany(ctx, []cache.Blob{b, other}); err == nil {
				fmt.Printf("blob %d\nblob %d\n", i, (i+1)%hammeredBlobs)
			}
		case 4:
			if err = s.UpdateActionResult(ctx, b.Digest, hammeredResult(i)); err == nil {
				fmt.Println("result", i)
			}
		case 5:
			_, err = cache.ReadBlob(ctx, s, b.Digest, 1<<20)
		case 6:
			_, err = s.GetActionResult(ctx, b.Digest)
		case 7:
			_, err = s.FindMissing(ctx, []digest.Digest{b.Digest})
		}
		if err != nil && (!errors.Is(err, cache.ErrNotFound) || errors.Is(err, errDamaged)) {
			return err
		}
	}
}

// acknowledged is what the processes said they had stored.
type acknowledged struct {
	sync.Mutex
	blobs, results map[uint64]bool
}

// run lets one process hammer until it has acknowledged n things and then kills it, wherever it is by then.
func (a *acknowledged) run(t *testing.T, dir string, limit int64, seed uint64, n int) {
	cmd := child(fmt.Sprint(seed, limit), dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return
	}
	lines := bufio.NewScanner(out)
	for ; lines.Scan(); n-- {
		var kind string
		var i uint64
		if _, err := fmt.Sscan(lines.Text(), &kind, &i); err == nil {
			a.Lock()
			map[string]map[uint64]bool{"blob": a.blobs, "result": a.results}[kind][i] = true
			a.Unlock()
		}
		if n == 0 {
			_ = cmd.Process.Kill() // what it still has written is read to the end
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Errorf("the process ended by itself, %v: %s", err, stderr.String())
	}
}

// die gives a blob its name and is killed before that is counted.
func die(ctx context.Context, dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	b := hammered(0)
	f, err := s.stage(name{blobs, b.Digest}, bytes.NewReader(b.Data), true)
	if err != nil {
		return err
	}
	return s.withLedger(ctx, func(l *ledger) error {
		if err := l.place(f, map[string]bool{}); err != nil {
			return err
		}
		return unix.Kill(os.Getpid(), unix.SIGKILL)
	})
}

// TestKilledInTheMiddle checks the one moment that random kills seldom hit.
func TestKilledInTheMiddle(t *testing.T) {
	s := newStore(t)
	put(t, s, "counted before")
	cmd := child("die", s.dir)
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.False(t, cmd.ProcessState.Exited(), "it was to be killed, but said: %s", out)
	require.True(t, has(t, s, hammered(0).Digest))
	requireCounted(t, s)
	put(t, s, "counted after")
	requireCounted(t, s)
}

// TestKill lets four processes at a time use one store and kills each at a random moment, several times over. Then
// everything that can be read is whole, and what was acknowledged is there unless it may have been evicted.
func TestKill(t *testing.T) {
	rounds := 5
	if os.Getenv("PEXPRESS_SOAK") != "" {
		rounds = 60
	}
	for name, limit := range map[string]int64{"no limit": 0, "evicting": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, pinSome(t.Context(), dir))
			ack := &acknowledged{blobs: map[uint64]bool{}, results: map[uint64]bool{}}
			r := rand.New(rand.NewPCG(1, 2))
			var wg sync.WaitGroup
			for range 4 {
				seed, n := r.Uint64(), rand.New(rand.NewPCG(r.Uint64(), 0))
				wg.Go(func() {
					for i := range uint64(rounds) {
						ack.run(t, dir, limit, seed+i, n.IntN(120))
					}
				})
			}
			wg.Wait()
			survey(t, dir, limit, ack)
		})
	}
}

const pinnedBlobs = 20

func pinSome(ctx context.Context, dir string) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	var ds []digest.Digest
	for i := range uint64(pinnedBlobs) {
		ds = append(ds, hammered(i).Digest)
	}
	return errors.Join(s.Pin(ctx, "some", ds), s.Close())
}

// survey looks at what the killed processes left.
func survey(t *testing.T, dir string, limit int64, ack *acknowledged) {
	s := openStore(t, dir, Options{MaxBytes: limit})
	require.Empty(t, regularFiles(t, s.path("tmp")), "temporary files of the dead are swept")
	require.Empty(t, regularFiles(t, s.path("quarantine")), "nobody ever read anything partial")
	requireCounted(t, s)
	v, err := s.Verify(t.Context())
	require.NoError(t, err)
	require.Empty(t, v.Corrupt)
	st, err := s.Stats(t.Context())
	require.NoError(t, err)
	t.Logf("%d blobs and %d results acknowledged; %+v", len(ack.blobs), len(ack.results), st)
	require.NotEmpty(t, ack.blobs)
	if limit > 0 {
		require.LessOrEqual(t, st.Bytes, limit, "what is pinned is far less")
	}
	for i := range ack.blobs {
		requireWhole(t, limit > 0 && i >= pinnedBlobs, func() error {
			_, err := cache.ReadBlob(t.Context(), s, hammered(i).Digest, 1<<20)
			return err
		})
	}
	for i := range ack.results {
		requireWhole(t, limit > 0 && i >= pinnedBlobs, func() error {
			got, err := s.GetActionResult(t.Context(), hammered(i).Digest)
			if err == nil {
				require.Equal(t, hammeredResult(i).StdoutRaw, got.StdoutRaw)
			}
			return err
		})
	}
}

func requireWhole(t *testing.T, mayBeEvicted bool, read func() error) {
	t.Helper()
	if err := read(); !mayBeEvicted || !errors.Is(err, cache.ErrNotFound) {
		require.NoError(t, err)
	}
}
