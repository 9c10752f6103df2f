package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	hclog "github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// builderMain is the main of the test's builder: mode says in which way it is good or bad.
func builderMain(args []string) int {
	b := testBuilder{mode: args[0]}
	if len(args) > 1 {
		b.marker = args[1]
	}
	switch b.mode {
	case "sleep", "start-hang":
		time.Sleep(time.Hour)
	case "start-exit":
		fmt.Fprintln(os.Stderr, "I would rather not")
		return 3
	case "start-exit-125":
		return 125
	case "start-garbage":
		fmt.Println("Hello, World! \x1b[31m" + strings.Repeat("x", 100<<10))
		time.Sleep(time.Hour)
	case "start-old", "start-new", "start-core":
		version := map[string]string{"start-old": "1|0", "start-new": "1|7", "start-core": "2|1"}[b.mode]
		fmt.Printf("%s|unix|%s|grpc\n", version, filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "s"))
		time.Sleep(time.Hour)
	case "start-deaf":
		b.handshake(filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "deaf"))
	case "start-elsewhere":
		fmt.Printf("1|1|unix|%s|grpc\n", b.marker)
		time.Sleep(time.Hour)
	case "giant":
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig: handshake,
			Plugins:         goplugin.PluginSet{pluginName: &grpcPlugin{builder: b, stderr: os.Stderr}},
			GRPCServer:      func(opts []grpc.ServerOption) *grpc.Server { return grpc.NewServer(opts...) },
			Logger:          hclog.NewNullLogger(),
		})
	}
	if err := Serve(b); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type testBuilder struct{ mode, marker string }

// handshake introduces a builder that takes connections and never says a word on them.
func (b testBuilder) handshake(socket string) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	fmt.Printf("1|1|unix|%s|grpc\n", socket)
	for {
		_, _ = l.Accept()
	}
}

func (b testBuilder) Describe(context.Context) (Description, error) {
	switch b.mode {
	case "bad-name":
		return Description{Name: "../etc", OutputVersion: "1", Kinds: []string{"test"}}, nil
	case "no-version":
		return Description{Name: "test", Kinds: []string{"test"}}, nil
	}
	return Description{Name: "test", OutputVersion: "test-1", Kinds: []string{"test"}}, nil
}

func (b testBuilder) Build(ctx context.Context, cas cache.CAS, action digest.Digest) (*repb.ActionResult, error) {
	if r, err, done := b.misbehave(ctx); done {
		return r, err
	}
	var c repb.Command
	var a repb.Action
	err := cache.ReadMessage(ctx, cas, action, &a)
	if err == nil {
		err = cache.ReadMessage(ctx, cas, mustDigest(a.GetCommandDigest()), &c)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInputUnreadable, err)
	}
	out, err := b.output(ctx, cas, &a, c.GetArguments())
	if err != nil {
		return nil, err
	}
	return b.spoil(ctx, cas, c.GetArguments(), out)
}

// misbehave does what has nothing to do with an Action.
func (b testBuilder) misbehave(ctx context.Context) (*repb.ActionResult, error, bool) {
	switch b.mode {
	case "panic":
		go func() { panic("the sky is falling") }()
		time.Sleep(time.Hour)
	case "exit":
		fmt.Fprintln(os.Stderr, "I have had enough")
		os.Exit(7)
	case "hang":
		time.Sleep(time.Hour)
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err(), true
	case "flood":
		_, _ = io.CopyN(os.Stderr, zeroes{}, 100<<20)
	case "log":
		// What go-plugin takes for log lines and panics at.
		fmt.Fprintln(os.Stderr, `{"@message": 1, "@level": {}}`)
	case "stdout":
		_, _ = os.NewFile(1, "stdout").Write(bytes.Repeat([]byte("x"), 1<<20))
		_, _ = os.Stdout.Write(bytes.Repeat([]byte("x"), 1<<20))
	case "invalid":
		return nil, fmt.Errorf("%w: no such \x1b[31mkind", ErrInvalidAction), true
	case "version":
		return nil, ErrOutputVersion, true
	case "unknown":
		return nil, errors.New("out of cheese"), true
	case "nil":
		return nil, nil, true
	case "giant":
		return &repb.ActionResult{StdoutRaw: make([]byte, maxMessage+1)}, nil, true
	case "grandchild", "grandchild-exit":
		program := os.Args[0]
		if _, err := os.Stat("/builder"); err == nil {
			program = "/builder"
		}
		if err := exec.Command(program, builderArg, "sleep", b.marker).Start(); err != nil {
			return nil, err, true
		}
		if b.mode == "grandchild-exit" {
			os.Exit(7)
		}
	}
	return nil, nil, false
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "flood\n"[i%6]
	}
	return len(p), nil
}

// output makes a tree of the Action's input and what the probes found.
func (b testBuilder) output(ctx context.Context, cas cache.CAS, a *repb.Action, args []string) (*merkle.Tree, error) {
	in, err := merkle.Load(ctx, cas, mustDigest(a.GetInputRootDigest()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInputUnreadable, err)
	}
	var tree merkle.Builder
	err = tree.Graft("in", in)
	if b.mode == "probe" {
		report, e := cache.PutBlob(ctx, cas, probe(ctx, cas, args))
		err = errors.Join(err, e, tree.File("report", report))
	}
	if b.mode == "undeclared" {
		err = errors.Join(err, tree.File("stolen", mustParse(args[1])))
	}
	if err != nil {
		return nil, err
	}
	t, err := tree.Build()
	if err != nil {
		return nil, err
	}
	return t, t.Put(ctx, cas)
}

// spoil stores the tree and makes the result of it.
func (b testBuilder) spoil(ctx context.Context, cas cache.CAS, args []string, t *merkle.Tree) (*repb.ActionResult, error) {
	msg := t.Proto()
	if b.mode == "not-executable" {
		msg = &repb.Tree{Root: &repb.Directory{Files: []*repb.FileNode{{Name: "f", Digest: digest.FromBytes(input).Proto()}}}}
	}
	tree, err := cache.PutMessage(ctx, cas, msg)
	if err != nil {
		return nil, err
	}
	out := &repb.OutputDirectory{Path: outputPath, TreeDigest: tree.Proto(), RootDirectoryDigest: t.Root().Proto()}
	r := &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{out}}
	switch b.mode {
	case "wrong-outputs":
		out.Path = "../out"
	case "more-outputs":
		r.OutputDirectories = append(r.OutputDirectories, out)
	case "disagree":
		out.RootDirectoryDigest = digest.FromBytes([]byte("other")).Proto()
	case "not-executable":
		root, err := cache.PutMessage(ctx, cas, msg.GetRoot())
		out.RootDirectoryDigest = root.Proto()
		return r, err
	case "no-tree":
		out.TreeDigest = digest.FromBytes([]byte("never written")).Proto()
	case "no-digest":
		out.TreeDigest = nil
	case "exit-code":
		r.ExitCode = 1
	case "symlink":
		r.OutputSymlinks = []*repb.OutputSymlink{{Path: "out2", Target: "/etc/passwd"}}
	case "stdout-digest":
		r.StdoutDigest = mustParse(args[1]).Proto()
	}
	return r, nil
}

func mustDigest(p *repb.Digest) digest.Digest {
	d, err := digest.FromProto(p)
	if err != nil {
		panic(err)
	}
	return d
}

func mustParse(s string) digest.Digest {
	d, err := digest.Parse(s)
	if err != nil {
		panic(err)
	}
	return d
}
