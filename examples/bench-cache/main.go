// Command bench-cache puts load on a cache that speaks the Remote Execution API and says what it did. `make
// bench-cache` measures pexcache, bazel-remote and a null server, one after the other in every round of one run:
//
//	go run ./examples/bench-cache
//
// With --target it measures one server that runs already, whosever it is:
//
//	go run ./examples/bench-cache --target grpc://localhost:9092
//
// Requests are encoded, and digests computed, before the clock starts; every status is looked at, and one answer of 64
// is checked to the last byte. An acknowledged write is on disk: pexcache syncs groups of writes, the file and what
// names it; bazel-remote syncs each file, though not its directory.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
)

// options are the flags.
type options struct {
	target, instance, servers, only, json string
	ours, peerMode, dir, tools, null      string
	clients, connections, rounds, chunk   int
	seconds, compressible                 float64
	prepare                               int64
	seed                                  uint64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench-cache:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var o options
	f := flag.NewFlagSet("bench-cache", flag.ContinueOnError)
	f.StringVar(&o.target, "target", "", "measure only this `address`, grpc://HOST:PORT, and start nothing")
	f.StringVar(&o.instance, "instance", "", "the instance `name` in requests")
	f.StringVar(&o.servers, "servers", oursName+","+peerName+","+nullName, "the servers to start and measure")
	f.StringVar(&o.only, "only", "", "measure only workloads whose names match this `regexp`")
	f.StringVar(&o.json, "json", "", "write all samples to this `file`")
	f.StringVar(&o.ours, "pexcache", "bin/pexcache", "pexcache's `binary`")
	f.StringVar(&o.peerMode, "peer-storage", "zstd", "how bazel-remote stores blobs: zstd, its default, or uncompressed")
	f.StringVar(&o.dir, "dir", ".bench/cache", "where the servers store, and log")
	f.StringVar(&o.tools, "tools", ".cache/tools", "where the peer is built")
	f.StringVar(&o.null, "null", "", "serve as the null server on this `address`, and do nothing else")
	f.IntVar(&o.clients, "clients", 16, "how many clients call at once")
	f.IntVar(&o.connections, "connections", 4, "how many connections the clients share")
	f.IntVar(&o.rounds, "rounds", 5, "how often each workload is run on each server, after one round to warm up")
	f.IntVar(&o.chunk, "chunk", 1<<20, "the most `bytes` in one message of a ByteStream Write")
	f.Float64Var(&o.seconds, "seconds", 2, "how long each runs at most")
	f.Float64Var(&o.compressible, "compressible", 0.5, "the `share` of each blob that is text; the rest is random")
	f.Int64Var(&o.prepare, "prepare", 256, "how many `MiB` of small writes are prepared for a round; four times that of large ones")
	f.Uint64Var(&o.seed, "seed", 0, "makes the contents; 0 takes a new one")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.null != "" {
		l, err := net.Listen("tcp", o.null)
		if err != nil {
			return err
		}
		return serveNull(l)
	}
	return bench(ctx, o, stdout)
}
