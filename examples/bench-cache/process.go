package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server that was started here.
type process struct {
	cmd *exec.Cmd
	log string
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start starts a server that is to listen at address, and waits until it does. It ends with us whatever happens.
func start(ctx context.Context, log, address, program string, args ...string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &process{exec.Command(program, args...), log}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	for range 600 {
		if conn, err := net.Dial("tcp", address); err == nil {
			return p, conn.Close()
		}
		select {
		case <-ctx.Done():
			p.stop()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	p.stop()
	said, _ := os.ReadFile(log)
	return nil, fmt.Errorf("%s does not listen on %s; it said:\n%s", program, address, said)
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-done
	}
}

// usage is what a process used.
type usage struct {
	User    float64 `json:"user_seconds"`
	System  float64 `json:"system_seconds"`
	Written int64   `json:"written_bytes,omitempty"` // sent to the disk
	PeakRSS int64   `json:"peak_rss_bytes,omitempty"`
}

func (u usage) minus(v usage) usage {
	return usage{u.User - v.User, u.System - v.System, u.Written - v.Written, u.PeakRSS}
}

func (u usage) cpu() float64 { return u.User + u.System }

// ticks is the unit of /proc's times, USER_HZ: 100 on every Linux that Go runs on.
const ticks = 100

// look reads what a process has used from /proc.
func look(pid int) (usage, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return usage{}, err
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return usage{
		User: user / ticks, System: system / ticks,
		Written: field(filepath.Join(dir, "io"), "write_bytes:"),
		PeakRSS: field(filepath.Join(dir, "status"), "VmHWM:") << 10,
	}, nil
}

// field returns a number from a file of names and numbers, 0 if it is not there.
func field(file, name string) int64 {
	b, _ := os.ReadFile(file)
	_, rest, _ := strings.Cut(string(b), name)
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(f[0], 10, 64)
	return n
}

// forgetPeak has the process's peak of resident memory start again from what it is now.
func forgetPeak(pid int) {
	_ = os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0)
}
