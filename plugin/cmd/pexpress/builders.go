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
	ui      *ui
	mu      sync.Mutex
	process *plugin.Process
}

// Builder implements build.Builders. The built-in PEX builder is this same binary, started as any plugin is.
func (b *builders) Builder(ctx context.Context, kind string) (plugin.Builder, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process != nil {
		return b.process, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the pexpress binary: %w", err)
	}
	p, err := plugin.Start(ctx, plugin.Options{
		Command: []string{self, "builder"},
		Sandbox: true,
		Report:  b.ui.warn,
	})
	if err != nil {
		return nil, err
	}
	b.process = p
	return p, nil
}

func (b *builders) close() error {
	if b.process == nil {
		return nil
	}
	return b.process.Close()
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
