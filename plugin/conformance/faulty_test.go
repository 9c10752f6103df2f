package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin"
)

// faulty is the main of a builder with a fault, "none" for none.
func faulty(fault string) int {
	hosted := os.Getenv("PEXPRESS_PLUGIN") != ""
	versions := os.Getenv("PLUGIN_PROTOCOL_VERSIONS")
	dir := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	switch {
	case fault == "runs-by-hand" && !hosted:
		time.Sleep(time.Hour)
	case fault == "silent-by-hand" && !hosted:
		return 1
	case !hosted:
	case fault == "exits":
		fmt.Fprintln(os.Stderr, "I would rather not")
		return 3
	case fault == "garbage":
		return hang("Hello, World!")
	case fault == "endless-line":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<20)); err != nil {
				return 1
			}
		}
	case fault == "core":
		return hang("2|1|unix|" + listen("unix", filepath.Join(dir, "s")) + "|grpc")
	case fault == "old":
		return hang("1|0|unix|" + listen("unix", filepath.Join(dir, "s")) + "|grpc")
	case fault == "tcp":
		return hang("1|1|tcp|" + listen("tcp", "127.0.0.1:0") + "|grpc")
	case fault == "elsewhere":
		other, err := os.MkdirTemp(filepath.Dir(dir), "s")
		if err != nil {
			panic(err)
		}
		return hang("1|1|unix|" + listen("unix", filepath.Join(other, "s")) + "|grpc")
	case fault == "too-early":
		return hang("1|1|unix|" + filepath.Join(dir, "s") + "|grpc")
	case fault == "echoes-version" && versions != "1":
		return hang("1|" + versions[:1] + "|unix|" + listen("unix", filepath.Join(dir, "s")) + "|grpc")
	case fault == "only-one" && versions != "1":
		fmt.Fprintln(os.Stderr, "just 1, please")
		return 1
	case fault == "lives-on":
		os.Unsetenv("PEXPRESS_LIFELINE")
	case fault == "unhealthy":
		return unhealthy(filepath.Join(dir, "s"))
	case fault == "needs-etc":
		if _, err := os.Stat("/etc/passwd"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if err := plugin.Serve(&builder{fault: fault, seen: map[string]digest.Digest{}}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func hang(line string) int {
	fmt.Println(line)
	time.Sleep(time.Hour)
	return 0
}

// listen takes connections and says nothing.
func listen(network, address string) string {
	l, err := net.Listen(network, address)
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			_, _ = l.Accept()
		}
	}()
	return l.Addr().String()
}

// builder makes one tree of the inputs; fault says what it does wrong.
type builder struct {
	fault string
	mu    sync.Mutex
	calls int
	seen  map[string]digest.Digest // "remembers": files of earlier builds
}

// Describe implements plugin.Builder.
func (b *builder) Describe(context.Context) (plugin.Description, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	d := plugin.Description{Name: "faulty", OutputVersion: "1", Kinds: []string{"copy"}}
	switch {
	case b.fault == "bad-name":
		d.Name = "Bad Name"
	case b.fault == "no-kinds":
		d.Kinds = nil
	case b.fault == "other-kinds" && b.calls > 1:
		d.Kinds = append(d.Kinds, "more")
	}
	return d, nil
}

// Build implements plugin.Builder.
func (b *builder) Build(ctx context.Context, cas cache.CAS, action digest.Digest) (*repb.ActionResult, error) {
	if b.fault == "fails" {
		return nil, errors.New("out of order")
	}
	var a repb.Action
	var c repb.Command
	if err := read(ctx, cas, action.Proto(), &a); err != nil {
		return nil, err
	}
	if err := read(ctx, cas, a.GetCommandDigest(), &c); err != nil {
		return nil, err
	}
	if args := c.GetArguments(); b.fault != "any-kind" && (len(args) != 3 || args[2] != "copy") {
		if b.fault == "wrong-code" {
			return nil, errors.New("what is this?")
		}
		return nil, fmt.Errorf("%w: %q is no kind of this builder", plugin.ErrInvalidAction, args)
	}
	if v := a.GetPlatform().GetProperties(); b.fault != "any-version" && (len(v) != 1 || v[0].GetValue() != "1") {
		return nil, fmt.Errorf("%w: %v", plugin.ErrOutputVersion, v)
	}
	return b.copy(ctx, cas, &a, &c)
}

func read(ctx context.Context, cas cache.CAS, p *repb.Digest, m proto.Message) error {
	d, err := digest.FromProto(p)
	if err == nil {
		err = cache.ReadMessage(ctx, cas, d, m)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", plugin.ErrInputUnreadable, err)
	}
	return nil
}

// copy makes the output, a copy of the input root with a file of its own.
func (b *builder) copy(ctx context.Context, cas cache.CAS, a *repb.Action, c *repb.Command) (*repb.ActionResult, error) {
	root, err := digest.FromProto(a.GetInputRootDigest())
	if err != nil {
		return nil, err
	}
	in, err := merkle.Load(ctx, cas, root)
	if err != nil {
		if b.fault == "blames-user" {
			return nil, fmt.Errorf("%w: %w", plugin.ErrInvalidAction, err)
		}
		return nil, fmt.Errorf("%w: %w", plugin.ErrInputUnreadable, err)
	}
	if err := b.remember(ctx, cas, in); err != nil {
		return nil, err
	}
	own, err := cache.PutBlob(ctx, cas, []byte("made"+b.whim(root)))
	if err != nil {
		return nil, err
	}
	var out merkle.Builder
	if err := errors.Join(out.Graft("copy", in), out.File("made", own)); err != nil {
		return nil, err
	}
	tree, err := out.Build()
	if err == nil {
		err = tree.Put(ctx, cas)
	}
	if err != nil {
		return nil, err
	}
	return b.answer(ctx, cas, tree, c)
}

// remember asks for what the build before declared.
func (b *builder) remember(ctx context.Context, cas cache.CAS, in *merkle.Tree) error {
	if b.fault != "remembers" {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for path, d := range in.Files() {
		if old, ok := b.seen[path]; ok && old != d {
			_, _ = cache.ReadBlob(ctx, cas, old, 1<<20)
		}
		b.seen[path] = d
	}
	return nil
}

// whim is what else than the inputs the output follows from.
func (b *builder) whim(root digest.Digest) string {
	switch b.fault {
	case "clock":
		return fmt.Sprint(time.Now().Unix())
	case "timezone":
		return os.Getenv("TZ")
	case "locale":
		return os.Getenv("LC_ALL")
	case "hash-seed":
		return os.Getenv("PYTHONHASHSEED")
	case "tmpdir":
		if os.Getpid() == 1 {
			return ""
		}
		return os.TempDir()
	case "reads-host":
		content, _ := os.ReadFile("/etc/passwd")
		return fmt.Sprint(len(content))
	case "mixes-up-the-second":
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.seen) == 0 {
			b.seen["first"] = root
		}
		if root != b.seen["first"] {
			b.calls++
			return fmt.Sprint(b.calls)
		}
	case "mixes-up":
		b.mu.Lock()
		b.calls++
		first := b.calls < 4
		b.mu.Unlock()
		if !first {
			return root.Hash() + fmt.Sprint(b.calls)
		}
	}
	return ""
}

// answer returns the result, with the faults of results.
func (b *builder) answer(ctx context.Context, cas cache.CAS, tree *merkle.Tree, c *repb.Command) (*repb.ActionResult, error) {
	p := tree.Proto()
	root := tree.Root()
	switch b.fault {
	case "not-executable":
		p.Root.Files[0].IsExecutable = false
	case "empty-directory":
		p.Root.Directories = append(p.Root.Directories, &repb.DirectoryNode{Name: "empty", Digest: digest.FromBytes(nil).Proto()})
		p.Children = append(p.Children, &repb.Directory{})
	case "guesses-blob":
		p.Root.Files[0].Digest = digest.FromBytes([]byte("somebody else's")).Proto()
	}
	if strings.Contains("not-executable empty-directory guesses-blob", b.fault) {
		var err error
		if root, err = cache.PutMessage(ctx, cas, p.GetRoot()); err != nil {
			return nil, err
		}
		if _, err = cache.PutBlob(ctx, cas, nil); err != nil {
			return nil, err
		}
	}
	td, err := cache.PutMessage(ctx, cas, p)
	if err != nil {
		return nil, err
	}
	path := c.GetOutputPaths()[0]
	if b.fault == "fixed-path" {
		path = "copy"
	}
	return &repb.ActionResult{OutputDirectories: []*repb.OutputDirectory{{
		Path: path, TreeDigest: td.Proto(), RootDirectoryDigest: root.Proto(),
	}}}, nil
}
