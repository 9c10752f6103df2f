package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// buildSource is the source build of dagster-cloud-cli, without its steps that ask git and the network.
const buildSource = `
import sys
from packaging import version
from dagster_cloud_cli.core.pex_builder import source
print(source.build_source_pex(sys.argv[1], [], sys.argv[2], version.Version("3.11")))
`

// peerDeps builds deps.pex as a dagster-cloud-cli deployment has it: one zipapp of all wheels.
func (b *bench) peerDeps(project string) (string, error) {
	out := b.path("peer-deps-" + project + ".pex")
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	requirements, wheels := b.path(project, "requirements.txt"), b.path("wheels")
	if err := b.shell("", b.python(), "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
		"--only-binary=:all:", "-d", wheels, "-r", requirements); err != nil {
		return "", err
	}
	return out, b.shell("", b.python(), "-m", "pex", "-r", requirements, "--no-pypi", "--find-links", wheels, "--intransitive", "-o", out)
}

// peerSource runs the peer's source build and returns the PEX.
func (b *bench) peerSource(project string) (string, error) {
	out := b.path("peer-source")
	if err := os.RemoveAll(out); err != nil {
		return "", err
	}
	// The peer starts `dagster-cloud` and `pex` from PATH.
	cmd := exec.CommandContext(b.ctx, b.python(), "-c", buildSource, b.path(project), out)
	cmd.Env = b.env("PATH="+b.path("peers/bin")+":"+os.Getenv("PATH"), "PEX_ROOT="+b.path("pex-root"))
	if words, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the peer's source build: %w\n%s", err, words)
	}
	found, err := filepath.Glob(filepath.Join(out, "source-*.pex"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("the peer's source build left %q", found)
	}
	return found[0], nil
}

// peerServe starts the project's server under pex's own runtime and returns the time until it answers.
func (b *bench) peerServe(e edited, source, deps, root string) (time.Duration, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	address := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	args := []string{source}
	for _, a := range e.serve {
		args = append(args, strings.ReplaceAll(a, "{port}", port))
	}
	cmd := exec.Command("python3.11", args...)
	cmd.Dir = b.path(e.project)
	cmd.Env = b.env("PEX_PATH="+deps, "PEX_ROOT="+root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = b.serving(address, e.answers)
	took := time.Since(start)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
	return took, err
}
