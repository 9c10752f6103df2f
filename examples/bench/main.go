// Command bench measures the design's budgets beside their peers, in paired runs on this machine, and prints one line a
// budget: pexpress, the peer, the ratio. `make bench` runs it. It installs the peers itself, keeps everything in .bench/
// and leaves no process.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	rounds := flag.Int("rounds", 7, "paired runs of each row")
	edits := flag.Int("edits", 100, "edits of a row, a second after one another, each followed by one more at once; the peer is measured beside each fifteenth")
	only := flag.String("only", "", "measure one row: edit, edit-asgi, edit-5000, unchanged, lock, files, bump, cold or cold-bucket")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *rounds, *edits, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds, edits int, only string) error {
	top, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	b := &bench{ctx: ctx, top: top, dir: filepath.Join(top, ".bench"), rounds: rounds, deploys: edits}
	defer b.cleanup()
	if err := b.setUp(); err != nil {
		return err
	}
	for _, m := range []struct {
		name string
		row  func() (row, error)
	}{
		{"edit", b.editDagster},
		{"edit-asgi", b.editASGI},
		{"edit-5000", b.editLarge},
		{"unchanged", b.deployUnchanged},
		{"lock", b.depsDigest},
		{"files", b.manyFiles},
		{"bump", b.bump},
		{"cold", b.coldHost},
		{"cold-bucket", b.coldFar},
	} {
		if only != "" && only != m.name {
			continue
		}
		r, err := m.row()
		if err != nil {
			return err
		}
		fmt.Println(r)
	}
	fmt.Println(b.noiseLine())
	return nil
}
