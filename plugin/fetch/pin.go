package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/plugin/lock"
)

// Pin is a wheel that pexpress itself needs, fixed to the byte.
type Pin struct {
	Project, Version, Filename string
	SHA256                     string
	Size                       int64
	platform                   string // pip's --platform, "" for a pure wheel
}

// Digest returns the wheel's digest.
func (p Pin) Digest() digest.Digest {
	d, err := digest.New(p.SHA256, p.Size)
	if err != nil {
		panic(err) // a constant below is wrong
	}
	return d
}

// PexPin is the pex whose runtime goes into the PEXes. Another version changes what is built: raise pex.OutputVersion
// with it.
var PexPin = Pin{
	Project: "pex", Version: "2.105.2",
	Filename: "pex-2.105.2-py2.py35.py36.py37.py38.py39.py310.py311-none-any.whl",
	SHA256:   "5a4d73fbeab30ddf70e360971cb19b9fa80b2a29cfe83e786215fcdd5ef1af9d",
	Size:     4130984,
}

const uvVersion = "0.13.9"

// uvPins are the resolver's wheels by GOOS/GOARCH: the static one, which runs with any libc.
var uvPins = map[string]Pin{
	"linux/amd64": {
		Filename: "uv-0.13.9-py3-none-musllinux_1_1_x86_64.whl", platform: "musllinux_1_1_x86_64",
		SHA256: "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25", Size: 19295638,
	},
	"linux/arm64": {
		Filename: "uv-0.13.9-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
		platform: "manylinux2014_aarch64",
		SHA256:   "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe", Size: 18026789,
	},
}

// UVPin returns the resolver's wheel for this machine.
func UVPin() (Pin, error) {
	p, ok := uvPins[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return p, fmt.Errorf("no uv is pinned for %s/%s: make the lock on another machine", runtime.GOOS, runtime.GOARCH)
	}
	p.Project, p.Version = "uv", uvVersion
	return p, nil
}

// Pinned brings a pinned wheel into the CAS and returns its digest. Which index it comes from is pip's to say: it is
// asked where the file is, and the file is then fetched and checked like any other.
func (f *Fetcher) Pinned(ctx context.Context, p Pin) (digest.Digest, error) {
	d := p.Digest()
	missing, err := f.cas.FindMissing(ctx, []digest.Digest{d})
	if err != nil || len(missing) == 0 {
		return d, err
	}
	where, err := f.locate(ctx, p)
	if err != nil {
		return d, fmt.Errorf("find %s %s, which pexpress needs: %w", p.Project, p.Version, err)
	}
	w := lock.Wheel{Name: p.Project, Version: p.Version, Filename: p.Filename, URL: where, SHA256: p.SHA256, Size: p.Size}
	_, err = f.Fetch(ctx, []lock.Wheel{w}, []digest.Digest{d})
	return d, err
}

// report is what of `pip install --report` matters here.
type report struct {
	Install []struct {
		Download struct {
			URL string `json:"url"`
		} `json:"download_info"`
	} `json:"install"`
}

// locate asks pip for the URL of a pinned wheel. The hash makes pip take that very file.
func (f *Fetcher) locate(ctx context.Context, p Pin) (string, error) {
	// The interpreter itself: a shim on PATH, such as pyenv's, may do more than run it.
	out, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		return "", fmt.Errorf("python3 with pip is needed to ask the configured index: %w", err)
	}
	python := strings.TrimSpace(string(out))
	dir, err := os.MkdirTemp("", "pexpress-pin")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	requirements := filepath.Join(dir, "requirements.txt")
	line := fmt.Sprintf("%s==%s --hash=sha256:%s\n", p.Project, p.Version, p.SHA256)
	if err := os.WriteFile(requirements, []byte(line), 0o600); err != nil {
		return "", err
	}
	args := []string{
		"-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:",
		"--target", filepath.Join(dir, "target"), "--report", "-", "-r", requirements,
	}
	if p.platform != "" {
		args = append(args, "--platform", p.platform)
	}
	cmd := exec.CommandContext(ctx, python, args...)
	// By the environment: what stands on a command line, every user of the machine can read.
	if index := uvIndex(); index != "" && f.config.pip["index-url"] == "" {
		cmd.Env = append(os.Environ(), "PIP_INDEX_URL="+index)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// pip ends with the build that is killed; the signal is tied to the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("pip could not: %w: %s", err, lastLine(stderr.String()))
	}
	var r report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		return "", fmt.Errorf("pip's report: %w", err)
	}
	if len(r.Install) != 1 || r.Install[0].Download.URL == "" {
		return "", errors.New("pip's report names no file")
	}
	return r.Install[0].Download.URL, nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// Copy writes a pinned wheel to w, bringing it into the CAS if need be.
func (f *Fetcher) Copy(ctx context.Context, p Pin, w io.Writer) error {
	d, err := f.Pinned(ctx, p)
	if err != nil {
		return err
	}
	r, err := f.cas.Get(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}
