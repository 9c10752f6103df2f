package compose

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
)

// locations are the directories that a project's configuration names.
type locations struct {
	Location map[string]struct {
		Directory string `toml:"directory"`
	} `toml:"location"`
}

// makeLocations makes the directories of the project's locations in a staging. A build tool lays out the files of the one
// that it builds; package project asks for all to be there. What is wrong with the configuration is for that to say.
func makeLocations(dir string) error {
	var own locations
	var pyproject struct {
		Tool struct {
			Pexpress locations `toml:"pexpress"`
		} `toml:"tool"`
	}
	if err := errors.Join(readTOML(filepath.Join(dir, "pexpress.toml"), &own),
		readTOML(filepath.Join(dir, "pyproject.toml"), &pyproject)); err != nil {
		return err
	}
	for _, l := range []locations{own, pyproject.Tool.Pexpress} {
		for _, location := range l.Location {
			if !filepath.IsLocal(location.Directory) {
				continue
			}
			if err := os.MkdirAll(filepath.Join(dir, location.Directory), 0o700); err != nil {
				return err
			}
		}
	}
	return nil
}

// readTOML reads a file that may be absent, and leaves v as it is if the file cannot be parsed.
func readTOML(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_ = toml.Unmarshal(b, v)
	return nil
}
