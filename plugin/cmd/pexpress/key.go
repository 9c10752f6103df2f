package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/codeserver/provenance"
)

func (a *app) keyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "key", Short: "Make the keys that deploys are signed with",
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkOutput() },
	}
	c.AddCommand(a.keyGenerateCommand())
	return c
}

func (a *app) keyGenerateCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "generate --out FILE", Short: "Make a key: FILE signs, FILE.pub is for codeservers", Args: cobra.NoArgs,
		Long: `Make an ed25519 key. FILE (mode 0600) is secret: 'pexpress deploy --sign-key FILE' signs with it. FILE.pub is not: a
codeserver that was started with --trusted-key FILE.pub takes deploys that FILE has signed, and no others.`,
		RunE: func(*cobra.Command, []string) error { return a.generateKey(out) },
	}
	c.Flags().StringVar(&out, "out", "", "file to write (required)")
	if err := c.MarkFlagRequired("out"); err != nil {
		panic(err) // there is no such flag
	}
	return c
}

func (a *app) generateKey(path string) error {
	private, public, err := provenance.Generate()
	if err != nil {
		return err
	}
	// The public half first: a private key without one would be of no use.
	if err := writeNew(path+".pub", public, 0o644); err != nil {
		return err
	}
	if err := writeNew(path, private, 0o600); err != nil {
		return errors.Join(err, os.Remove(path+".pub"))
	}
	key, err := provenance.ReadPrivate(path)
	if err != nil {
		return err
	}
	id, err := provenance.KeyID(key.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	a.ui.event("key", map[string]any{"key": id, "private": path, "public": path + ".pub"},
		"key %s\n  %s signs: keep it secret\n  %s.pub is for codeserver serve --trusted-key", id, path, path)
	return nil
}

// writeNew writes a file that is not there yet: a key that is replaced by mistake is lost.
func writeNew(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return inputErrorf("%s is there already: name another file, or remove it", path)
	}
	if err != nil {
		return inputError{err}
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	return nil
}
