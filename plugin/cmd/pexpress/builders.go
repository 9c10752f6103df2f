package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/plugin"
	"github.com/pexpress/pexpress/plugin/pex"
)

// builders starts the built-in builder when something has to be built, once a session.
type builders struct {
	ui    *ui
	mu    sync.Mutex
	start *starting

	end    sync.Once
	endErr error // set by end
}

// starting is a builder that starts, or has started.
type starting struct {
	done    chan struct{} // closed when the fields below are set
	process *plugin.Process
	err     error
}

// Builder implements build.Builders. The built-in PEX builder is this same binary, started as any plugin is.
func (b *builders) Builder(ctx context.Context, _ string) (plugin.Builder, error) {
	st := b.begin()
	select {
	case <-st.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if st.err != nil {
		return nil, st.err
	}
	return st.process, nil
}

// expect starts the builder, which is probably needed soon, and does not wait for it.
func (b *builders) expect() { b.begin() }

func (b *builders) begin() *starting {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.start != nil {
		return b.start
	}
	st := &starting{done: make(chan struct{})}
	b.start = st
	go func() {
		defer close(st.done)
		self, err := os.Executable()
		if err != nil {
			st.err = fmt.Errorf("find the pexpress binary: %w", err)
			return
		}
		st.process, st.err = plugin.Start(context.Background(), plugin.Options{
			Command: []string{self, "builder"},
			Sandbox: true,
			Report:  b.ui.warn,
		})
	}()
	return st
}

// close ends the builder. One that still starts, which nobody needs any more, is waited for: it takes milliseconds.
func (b *builders) close() error {
	b.end.Do(func() {
		b.mu.Lock()
		st := b.start
		b.mu.Unlock()
		if st == nil {
			return
		}
		<-st.done
		if st.err == nil { // else whoever needed it was told
			b.endErr = st.process.Close()
		}
	})
	return b.endErr
}

// builderCommand is the process that the built-in builder runs in.
func builderCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "builder",
		Short:  "Serve the built-in PEX builder as a plugin (started by pexpress itself)",
		Hidden: true,
		Args:   cobra.NoArgs,
		// In place of the root's: a sandbox has no home and takes no flags.
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(*cobra.Command, []string) error {
			if err := plugin.Serve(pex.New()); err != nil {
				return errors.Join(plugin.ErrBuilder, err)
			}
			return nil
		},
	}
}
