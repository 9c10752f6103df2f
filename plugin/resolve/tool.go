package resolve

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/pexpress/pexpress/plugin/fetch"
)

// tool returns the path of uv's program, taken out of its pinned wheel on the first call. Its name carries the wheel's
// hash, and it appears complete or not at all.
func tool(ctx context.Context, f *fetch.Fetcher, stateDir string) (string, error) {
	pin, err := fetch.UVPin()
	if err != nil {
		return "", err
	}
	program := filepath.Join(stateDir, "tools", "uv-"+pin.SHA256[:16])
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o700); err != nil {
		return "", err
	}
	wheel, err := os.CreateTemp(filepath.Dir(program), ".wheel*")
	if err != nil {
		return "", err
	}
	defer os.Remove(wheel.Name())
	defer wheel.Close()
	if err := f.Copy(ctx, pin, wheel); err != nil {
		return "", err
	}
	if err := unpack(wheel, pin.Size, program); err != nil {
		return "", fmt.Errorf("take uv out of %s: %w", pin.Filename, err)
	}
	return program, nil
}

func unpack(wheel io.ReaderAt, size int64, program string) error {
	z, err := zip.NewReader(wheel, size)
	if err != nil {
		return err
	}
	for _, m := range z.File {
		if path.Base(m.Name) == "uv" && path.Base(path.Dir(m.Name)) == "scripts" {
			return extract(m, program)
		}
	}
	return errors.New("it holds no uv")
}

func extract(m *zip.File, program string) error {
	r, err := m.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	t, err := os.CreateTemp(filepath.Dir(program), ".uv*")
	if err != nil {
		return err
	}
	_, err = io.Copy(t, r)
	if err = errors.Join(err, t.Chmod(0o755), t.Sync(), t.Close()); err != nil {
		return errors.Join(err, os.Remove(t.Name()))
	}
	return os.Rename(t.Name(), program)
}
