package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bench is one run: where things are, and what was started.
type bench struct {
	ctx     context.Context //nolint:containedctx // one run of a command
	top     string
	dir     string
	rounds  int
	deploys int // of a row of edits
	started []*exec.Cmd
	fixed   sample
	count   int      // of edits
	server  string   // id of the Dagster code server that answered last
	deps    []string // whose environments the codeserver has

	remote   string // address of the cache that everything goes through; "" is the one on this disk
	endpoint string // of the S3 server behind it
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

// setUp installs the peers and makes a project of the Dagster example with its wheels.
func (b *bench) setUp() error {
	for _, d := range []string{"home", "state", "project"} {
		if err := os.RemoveAll(b.path(d)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(b.path("project"), os.DirFS(filepath.Join(b.top, "examples/dagster-quickstart"))); err != nil {
		return err
	}
	fmt.Println("installing the peers and downloading wheels into .bench/")
	venv := b.path("peers")
	if _, err := os.Stat(filepath.Join(venv, "ready")); err != nil {
		if err := b.shell("", "python3.11", "-m", "venv", "--clear", venv); err != nil {
			return err
		}
		if err := b.shell("", b.python(), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r",
			filepath.Join(b.top, "examples/bench/requirements.txt")); err != nil {
			return err
		}
		if err := b.shell("", b.python(), "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
			"--only-binary=:all:", "-d", b.path("wheels"), "-r", b.path("project/requirements.txt")); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(venv, "ready"), nil, 0o644); err != nil {
			return err
		}
	}
	if _, err := b.pexpress("project", "lock", "requirements.txt"); err != nil {
		return err
	}
	if _, err := b.pexpress("project", "build"); err != nil {
		return err
	}
	return b.startCodeserver("state")
}

func (b *bench) python() string { return b.path("peers/bin/python") }

// env is the environment of both sides. Bytecode is written, as it is on a server.
func (b *bench) env(more ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PYTHONDONTWRITEBYTECODE=") && !strings.HasPrefix(kv, "PEX_") {
			env = append(env, kv)
		}
	}
	if b.remote != "" {
		env = append(env, "PEXPRESS_CACHE="+b.remote)
	}
	return append(env, append(more, "PEXPRESS_HOME="+b.path("home"), "PEXPRESS_CODESERVER="+b.socket())...)
}

func (b *bench) socket() string { return "unix://" + b.path("home", "cs.sock") }

// shell runs a program that must succeed.
func (b *bench) shell(dir, program string, args ...string) error {
	cmd := exec.CommandContext(b.ctx, program, args...)
	cmd.Dir, cmd.Env = dir, b.env("PEX_ROOT="+b.path("pex-root"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// event is a line of pexpress's JSON output.
type event struct {
	Event, Output, Stage, Address, Root string
	Milliseconds                        float64
	Bytes                               int64
}

// pexpress runs the command line in a project and returns its events.
func (b *bench) pexpress(project string, args ...string) ([]event, error) {
	cmd := exec.CommandContext(b.ctx, filepath.Join(b.top, "bin/pexpress"), append(args, "--output", "json")...)
	cmd.Dir, cmd.Env = b.path(project), b.env()
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pexpress %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	var events []event
	for line := range strings.Lines(string(out)) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// startCodeserver starts a codeserver with a state directory and waits until it answers. Its log is beside the directory.
func (b *bench) startCodeserver(state string, more ...string) error {
	log, err := os.Create(b.path(state + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(b.top, "bin/codeserver"), append([]string{
		"serve", "--state", b.path(state),
		"--cache", cmp.Or(b.remote, b.path("home/cache")), "--listen", b.socket(),
	}, more...)...)
	cmd.Env, cmd.Stderr = b.env(), log
	if err := cmd.Start(); err != nil {
		return err
	}
	b.started = append(b.started, cmd)
	for range 500 {
		if _, err := b.pexpress("project", "status"); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the codeserver does not answer")
}

// stopCodeserver ends the codeserver that was started last.
func (b *bench) stopCodeserver() {
	cmd := b.started[len(b.started)-1]
	b.started = b.started[:len(b.started)-1]
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}

func (b *bench) cleanup() {
	for len(b.started) > 0 {
		b.stopCodeserver()
	}
}

// withoutHashes returns a requirements.txt with versions but no hashes, and without one project.
func withoutHashes(requirements, project string) string {
	var kept []string
	for _, line := range strings.Split(requirements, "\n") {
		line = strings.TrimSpace(strings.TrimSuffix(line, "\\"))
		if line != "" && line[0] != '-' && line[0] != '#' && !strings.HasPrefix(line, project+"==") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n") + "\n"
}
