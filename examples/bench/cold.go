package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// coldHost serves on a host that has nothing yet, from a cache on its own disk.
func (b *bench) coldHost() (row, error) {
	return b.cold("from a cache on its disk", func() error { return nil })
}

// coldFar serves on a host that has nothing yet, from a bucket: through a cache server whose disk is empty as well.
func (b *bench) coldFar() (row, error) {
	gateway, err := b.startGateway()
	if err != nil {
		return row{}, err
	}
	defer b.stop(gateway)
	var node *exec.Cmd
	defer func() { b.remote = "" }()
	defer func() { b.stop(node) }()
	restart := func() error {
		b.stop(node)
		node, err = b.startNode()
		return err
	}
	if err := restart(); err != nil {
		return row{}, err
	}
	if _, err := b.pexpress("project", "build"); err != nil {
		return row{}, err
	}
	return b.cold("from a bucket, through pexcache with an empty disk", restart)
}

// cold measures first deploys on empty hosts beside pex's own cold start: of the first host of a fleet, which makes the
// bytecode of the wheels, and of the next one, which finds it in the cache. prepare runs before each.
func (b *bench) cold(what string, prepare func() error) (row, error) {
	out := b.path("exported")
	if err := os.RemoveAll(out); err != nil {
		return row{}, err
	}
	if _, err := b.pexpress("project", "export", "--layout", "packed", "-o", out); err != nil {
		return row{}, err
	}
	b.stopCodeserver()
	var first, next, peer sample
	for range max(2, b.rounds/3) {
		b.noise()
		// A key of its own: the cache has nothing that the first host believes.
		key := b.path("bytecode.key")
		if err := os.WriteFile(key, []byte(rand.Text()+rand.Text()), 0o600); err != nil {
			return row{}, err
		}
		for _, s := range []*sample{&first, &next} {
			took, err := b.coldDeploy(key, s == &first, prepare)
			if err != nil {
				return row{}, err
			}
			*s = append(*s, took)
		}
		if err := os.RemoveAll(b.path("cold-root")); err != nil {
			return row{}, err
		}
		took, err := b.peerServe(edited{project: "project", serve: dagsterServe(), answers: b.another}, filepath.Join(out, "source.pex"), filepath.Join(out, "deps.pex"), b.path("cold-root"))
		if err != nil {
			return row{}, err
		}
		peer = append(peer, took)
	}
	return row{
		"cold host, empty store, until serving (51 wheels, 51 MB), " + what,
		first.String() + ": the first host, which makes the bytecode; " + next.String() + ": the next one, which finds it in the cache",
		peer.String() + ": the same two PEXes under pex's own runtime", times(first, peer) + "; the next host " + times(next, peer),
		">= 3 x, at 110 MB of deps",
	}, b.startCodeserver("state")
}

// coldDeploy deploys to a host that has nothing, and returns the time until it serves. With fill it waits after that until
// the host has made the bytecode of all wheels.
func (b *bench) coldDeploy(key string, fill bool, prepare func() error) (time.Duration, error) {
	if err := errors.Join(os.RemoveAll(b.path("cold")), prepare()); err != nil {
		return 0, err
	}
	if err := b.startCodeserver("cold", "--bytecode-key", key); err != nil {
		return 0, err
	}
	defer b.stopCodeserver()
	start := time.Now()
	events, err := b.pexpress("project", "deploy", "--ready-timeout", "10m")
	if err == nil {
		err = b.serving(deployed(events), b.another)
	}
	took := time.Since(start)
	if fill && err == nil {
		err = b.untilBytecode("cold", 1)
	}
	return took, err
}

// untilBytecode waits until a codeserver has made the bytecode of so many environments.
func (b *bench) untilBytecode(state string, environments int) error {
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		log, err := os.ReadFile(b.path(state + ".log"))
		switch {
		case err != nil || b.ctx.Err() != nil:
			return errors.Join(err, b.ctx.Err())
		case bytes.Count(log, []byte("bytecode was made")) >= environments:
			return nil
		case bytes.Contains(log, []byte("bytecode is not made")), time.Since(begin) > 10*time.Minute:
			return fmt.Errorf("the host makes no bytecode: %s", log)
		}
	}
}

// gatewayKeys let our processes into the S3 server.
var gatewayKeys = []string{"AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=bench-secret", "AWS_REGION=us-east-1"}

// startGateway starts a real S3 server over an empty bucket.
func (b *bench) startGateway() (*exec.Cmd, error) {
	dir := b.path("s3")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(filepath.Join(dir, "bucket"), 0o755)); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	b.endpoint = "http://" + address
	return b.startListening(address, filepath.Join(b.top, ".cache/tools/versitygw"),
		"--access", "bench", "--secret", "bench-secret", "--port", address, "--quiet", "posix", dir)
}

// startNode starts a cache server with an empty disk over the bucket, which everything goes through from then on.
func (b *bench) startNode() (*exec.Cmd, error) {
	if err := os.RemoveAll(b.path("node")); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	b.remote = "grpc://" + address
	return b.startListening(address, filepath.Join(b.top, "bin/pexcache"), "serve", "--listen", address, "--http-listen", "127.0.0.1:0",
		"--disk", b.path("node"), "--s3", "s3://bucket", "--s3-endpoint", b.endpoint, "--s3-path-style")
}

// startListening starts a server and returns when it takes connections.
func (b *bench) startListening(address, program string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = b.env(gatewayKeys...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	for range 1000 {
		if c, err := net.Dial("tcp", address); err == nil {
			return cmd, c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.stop(cmd)
	return nil, fmt.Errorf("%s does not answer on %s:\n%s", program, address, said.String())
}

func (b *bench) stop(cmd *exec.Cmd) {
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed, it always has an error
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
