package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/plugin/compose"
)

func (a *app) digestCommand() *cobra.Command {
	var files, follow bool
	c := &cobra.Command{
		Use:   "digest DIR...",
		Short: "Say the digest of directories as trees",
		Long: `Say the digest of the root of each directory as a canonical tree: what 'pexpress build' calls it, and what the cache and
the codeserver know it by.`,
		Args:              takes(1, -1, "give at least one directory"),
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkOutput() },
		RunE: func(c *cobra.Command, dirs []string) error {
			for _, dir := range dirs {
				t, err := compose.ReadTree(c.Context(), dir, follow)
				if err != nil {
					return composeError(err)
				}
				a.ui.event("tree", map[string]any{"path": dir, "root": t.Root()}, "%s  %s", t.Root(), dir)
				if !files {
					continue
				}
				all, links := map[string]digest.Digest{}, map[string]string{}
				maps.Insert(all, t.Files())
				maps.Insert(links, t.Symlinks())
				for _, name := range slices.Sorted(maps.Keys(all)) {
					a.ui.event("file", map[string]any{"path": name, "digest": all[name]}, "%s  %s", all[name], name)
				}
				for _, name := range slices.Sorted(maps.Keys(links)) {
					a.ui.event("symlink", map[string]any{"path": name, "target": links[name]}, "%s", fmt.Sprintf("%s -> %s", name, links[name]))
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&files, "files", false, "every file's digest, too, and every symlink's target")
	c.Flags().BoolVar(&follow, "follow", false, "read absolute symlinks through: sandboxes stage files so")
	return c
}
