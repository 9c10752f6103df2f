package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peerModule is the peer, and the version that its figures are of.
const peerModule = "github.com/buchgr/bazel-remote/v2@v2.6.1"

// buildPeer builds the peer beside ours, with the versions of its own go.sum, and returns the binary.
func buildPeer(ctx context.Context, tools string) (string, error) {
	bin := filepath.Join(tools, "bazel-remote")
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	fmt.Fprintln(os.Stderr, "building the peer,", peerModule)
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", peerModule)
	download.Dir = os.TempDir() // not our module
	download.Stderr = os.Stderr
	if err := download.Run(); err != nil {
		return "", fmt.Errorf("download %s: %w", peerModule, err)
	}
	cache, err := exec.CommandContext(ctx, "go", "env", "GOMODCACHE").Output()
	if err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, ".")
	build.Dir = filepath.Join(strings.TrimSpace(string(cache)), peerModule)
	build.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", peerModule, err)
	}
	return bin, nil
}

// fleet is the servers of one run.
type fleet struct {
	dir     string
	targets []*target
	started []*process
}

func (f *fleet) stop() {
	for _, t := range f.targets {
		t.close()
	}
	for _, p := range f.started {
		p.stop()
	}
}

// add starts a server. args are given its address, a second one, and its empty directory.
func (f *fleet) add(ctx context.Context, name, program string, args func(address, second, dir string) []string) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	second, err := freeAddress()
	if err != nil {
		return err
	}
	dir := filepath.Join(f.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	p, err := start(ctx, dir+".log", address, program, args(address, second, dir)...)
	if err != nil {
		return err
	}
	f.started = append(f.started, p)
	f.targets = append(f.targets, &target{name: name, address: address, null: name == nullName, pid: p.cmd.Process.Pid})
	return nil
}

// The names of the servers in the report.
const (
	oursName = "pexcache"
	peerName = "bazel-remote"
	nullName = "null"
)

// startAll starts ours, the peer and the null server, as far as they are asked for.
func (f *fleet) startAll(ctx context.Context, o options) error {
	for _, name := range strings.Split(o.servers, ",") {
		var err error
		switch name {
		case oursName:
			err = f.add(ctx, name, o.ours, func(address, second, dir string) []string {
				return []string{"serve", "--listen", address, "--http-listen", second, "--disk", dir}
			})
		case peerName:
			var bin string
			if bin, err = buildPeer(ctx, o.tools); err == nil {
				err = f.add(ctx, name, bin, func(address, second, dir string) []string {
					return []string{
						"--grpc_address", address, "--http_address", second, "--dir", dir, "--max_size", "64",
						"--storage_mode", o.peerMode, "--access_log_level", "none",
					}
				})
			}
		case nullName:
			var self string
			if self, err = os.Executable(); err == nil {
				err = f.add(ctx, name, self, func(address, _, _ string) []string { return []string{"--null", address} })
			}
		default:
			err = fmt.Errorf("no server is called %q: name %s, %s or %s", name, oursName, peerName, nullName)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
