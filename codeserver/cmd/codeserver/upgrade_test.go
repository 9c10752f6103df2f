package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCheckProgram: what could not be executed as a codeserver is told from what could.
func TestCheckProgram(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), mode))
		return path
	}
	for says, path := range map[string]string{
		"no such file":      filepath.Join(dir, "gone"),
		"permission denied": write("data", "#!/bin/sh\n", 0o644),
		"exec format error": write("broken", "\x7fELF, cut off", 0o755),
		"exit status 3":     write("fails", "#!/bin/sh\necho no library; exit 3\n", 0o755),
		"no library":        filepath.Join(dir, "fails"),
		"is no codeserver":  write("other", "#!/bin/sh\necho hello\n", 0o755),
	} {
		require.ErrorContains(t, checkProgram(t.Context(), path, time.Minute), says)
	}
	hangs := write("hangs", "#!/bin/sh\nsleep 1000 & wait\n", 0o755)
	require.ErrorContains(t, checkProgram(t.Context(), hangs, 100*time.Millisecond), "did not end within 100ms")
	require.NoError(t, checkProgram(t.Context(), write("good", "#!/bin/sh\n[ \"$*\" = 'serve --help' ] && echo --adopt-within\n", 0o755), time.Minute))
}

// TestUpgradeNeedsAdoption checks that an upgrade that would end all versions is refused.
func TestUpgradeNeedsAdoption(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	upgrades, done := make(chan os.Signal), make(chan struct{})
	go func() {
		defer close(done)
		awaitUpgrade(ctx, upgrades, false, slog.New(slog.NewTextHandler(&log, nil)), func(error) { t.Error("it ends") })
	}()
	upgrades <- syscall.SIGUSR2
	upgrades <- syscall.SIGUSR2 // is taken when the first was dealt with
	cancel()
	<-done
	require.Contains(t, log.String(), "without --adopt-within")
}
