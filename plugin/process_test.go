package plugin

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBuild(t *testing.T) {
	bothWays(t, func(t *testing.T, isolate bool) {
		cas, mark := newStore(), marker()
		began := time.Now()
		p := start(t, options(t, "good", mark, isolate))
		d, err := p.Describe(t.Context())
		require.NoError(t, err)
		require.Equal(t, Description{"test", "test-1", []string{"test"}}, d)
		t.Logf("start and describe: %s", time.Since(began))
		began = time.Now()
		result, err := p.Build(t.Context(), cas, newAction(t, cas))
		require.NoError(t, err)
		t.Logf("build: %s", time.Since(began))
		require.Equal(t, map[string]string{"in/dir/input": string(input)}, outputs(t, cas, result))
		require.NotEmpty(t, processes(mark))
		began = time.Now()
		require.NoError(t, p.Close())
		t.Logf("close: %s", time.Since(began))
		require.Empty(t, processes(mark))
		require.NoError(t, p.Close(), "closing twice is fine")
		_, err = p.Build(t.Context(), cas, newAction(t, cas))
		require.ErrorIs(t, err, ErrBuilder)
		require.ErrorContains(t, err, "was closed")
	})
}

// TestBuildErrors holds what a builder can do wrong in a build: each ends in an error that says so, soon.
func TestBuildErrors(t *testing.T) {
	tests := []struct {
		mode, want string
		err        error
	}{
		{"panic", "the sky is falling", ErrBuilder},
		{"exit", "I have had enough", ErrBuilder},
		{"hang", "no answer after 500ms; it was ended", ErrBuilder},
		{"unknown", "out of cheese", ErrBuilder},
		{"nil", "it is empty", ErrBuilder},
		{"giant", "ResourceExhausted", ErrBuilder},
		{"wrong-outputs", `its outputs are ["../out"]`, ErrBuilder},
		{"more-outputs", `its outputs are ["out" "out"]`, ErrBuilder},
		{"disagree", "name different trees", ErrBuilder},
		{"no-tree", "not found", ErrBuilder},
		{"no-digest", "tree_digest", ErrBuilder},
		{"undeclared", `file "stolen": blob `, ErrBuilder},
		{"stdout-digest", "stdout_digest: blob ", ErrBuilder},
		{"not-executable", `file "f" is not executable`, ErrBuilder},
		{"exit-code", "its exit code is 1", ErrBuilder},
		{"symlink", "an output is a symlink", ErrBuilder},
		{"grandchild-exit", "it ended with exit status 7", ErrBuilder},
		{"invalid", "invalid action: no such [31mkind", ErrInvalidAction},
		{"version", "output version", ErrOutputVersion},
	}
	for _, tt := range tests {
		t.Run(tt.mode, func(t *testing.T) {
			bothWays(t, func(t *testing.T, isolate bool) {
				t.Parallel()
				cas, mark := newStore(), marker()
				opts := options(t, tt.mode, mark, isolate)
				if tt.mode == "hang" {
					opts.BuildTimeout = 500 * time.Millisecond
				}
				p := start(t, opts)
				_, err := p.Build(t.Context(), cas, newAction(t, cas, secret(t, cas).String()))
				require.ErrorIs(t, err, tt.err)
				require.ErrorContains(t, err, tt.want)
				if strings.Contains(tt.mode, "exit") && tt.mode != "exit-code" {
					require.ErrorContains(t, err, "it ended with exit status 7")
				}
				if tt.mode == "grandchild-exit" {
					requireGone(t, mark) // before Close: what a builder leaves behind goes when it does
				}
				require.NoError(t, p.Close())
				require.Empty(t, processes(mark))
			})
		})
	}
}

// TestOddBuilds holds what is odd about a builder and yet no reason to fail.
func TestOddBuilds(t *testing.T) {
	for _, mode := range []string{"flood", "log", "stdout", "grandchild"} {
		t.Run(mode, func(t *testing.T) {
			bothWays(t, func(t *testing.T, isolate bool) {
				t.Parallel()
				cas, mark := newStore(), marker()
				p := start(t, options(t, mode, mark, isolate))
				_, err := p.Build(t.Context(), cas, newAction(t, cas))
				require.NoError(t, err)
				require.LessOrEqual(t, len(p.log.String()), tailBytes)
				if mode == "grandchild" {
					require.Len(t, processes(mark), 2)
				}
				require.NoError(t, p.Close())
				require.Empty(t, processes(mark))
			})
		})
	}
}

func TestDescribeErrors(t *testing.T) {
	for mode, want := range map[string]string{"bad-name": `its name "../etc"`, "no-version": "its output version"} {
		p := start(t, options(t, mode, marker(), true))
		_, err := p.Describe(t.Context())
		require.ErrorIs(t, err, ErrBuilder)
		require.ErrorContains(t, err, want)
	}
}

func TestBuildUnreadableAction(t *testing.T) {
	p := start(t, options(t, "good", marker(), false))
	_, err := p.Build(t.Context(), newStore(), secret(t, newStore()))
	require.ErrorIs(t, err, ErrInputUnreadable)
}

func TestConcurrentBuilds(t *testing.T) {
	cas := newStore()
	p := start(t, options(t, "good", marker(), true))
	var wg sync.WaitGroup
	for i := range 10 {
		action := newAction(t, cas, strings.Repeat("x", i))
		wg.Go(func() {
			for range 3 {
				_, err := p.Build(t.Context(), cas, action)
				if err != nil {
					t.Errorf("build %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	left, err := os.ReadDir(p.dir.Path)
	require.NoError(t, err)
	for _, e := range left {
		require.NotContains(t, e.Name(), "cas", "an endpoint outlives its build")
	}
}

// TestCancel checks that a caller who goes away is let go, even by a builder that does not listen, and that the builder
// lives on for others.
func TestCancel(t *testing.T) {
	bothWays(t, func(t *testing.T, isolate bool) {
		cas, mark := newStore(), marker()
		p := start(t, options(t, "hang", mark, isolate))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		_, err := p.Build(ctx, cas, newAction(t, cas))
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrBuilder)

		ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = p.Build(ctx, cas, newAction(t, cas))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, ErrBuilder, "the caller's haste is not the builder's fault")

		_, err = p.Describe(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, processes(mark))
	})
}

func TestCloseWhileBuilding(t *testing.T) {
	bothWays(t, func(t *testing.T, isolate bool) {
		cas, mark := newStore(), marker()
		p := start(t, options(t, "hang", mark, isolate))
		failed := make(chan error, 1)
		action := newAction(t, cas)
		go func() {
			_, err := p.Build(t.Context(), cas, action)
			failed <- err
		}()
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, p.Close())
		select {
		case err := <-failed:
			require.ErrorIs(t, err, ErrBuilder)
			require.ErrorContains(t, err, "it was closed")
		case <-time.After(soon):
			t.Fatal("the build goes on")
		}
		requireGone(t, mark)
	})
}
