package codeserver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// serveEnv has the test's binary serve the directory that it names, until it is killed.
const serveEnv = "CODESERVER_TEST_SERVE"

// adoptEnv is how long versions of that server go on without it.
const adoptEnv = "CODESERVER_TEST_ADOPT"

// usersEnv is the first of the users that it gives, if it gives any.
const usersEnv = "CODESERVER_TEST_USERS"

func serveForTest(dir string) {
	adopt, _ := time.ParseDuration(os.Getenv(adoptEnv))
	var users Users
	if first, err := strconv.Atoi(os.Getenv(usersEnv)); err == nil {
		users = Users{First: first, Last: first + 19}
	}
	s, err := Open(Options{
		State: filepath.Join(dir, "state"), StopGrace: time.Second, Keep: 2, AdoptWithin: adopt, Users: users,
		Open: func(context.Context) (cache.CAS, io.Closer, error) {
			c, err := disk.Open(filepath.Join(dir, "cache"), disk.Options{})
			return c, c, err
		},
	})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	g := grpc.NewServer()
	s.Register(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println("serving", l.Addr())
	panic(g.Serve(l))
}

// child is a codeserver in a process of its own.
type child struct {
	cmd *exec.Cmd
	*client.Client
}

func startChild(t *testing.T, dir string) *child {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	var address string
	_, err = fmt.Sscanf(line, "serving %s", &address)
	require.NoError(t, err, line)
	c, err := client.Dial(t.Context(), address)
	require.NoError(t, err)
	return &child{cmd, c}
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	_ = c.Client.Close()
}

// TestKillZygotes kills a codeserver one of whose zygotes has imported a module that starts a program. Nothing is left of it.
func TestKillZygotes(t *testing.T) {
	var o Options
	withUsers(t)(&o)
	t.Setenv(usersEnv, strconv.Itoa(o.Users.First))
	dir := t.TempDir()
	cas, err := disk.Open(filepath.Join(dir, "cache"), disk.Options{})
	require.NoError(t, err)
	defer cas.Close()
	server := startChild(t, dir)
	defer func() { server.kill() }()
	w := wheel(t, "dep", member{name: "dep.py", content: "import subprocess\nsubprocess.Popen(['sleep', '3600'], start_new_session=True)\n"})
	deps := depsTree(t, cas, map[string][]byte{"dep-1.0-py3-none-any.whl": w}).Proto()
	n := 0
	eventually(t, func() bool {
		n++
		app := webApp(fmt.Sprint("word", n))
		app["app/__main__.py"] = "import dep\n" + webMain
		d, err := deployWith(t.Context(), server, &codeserverpb.DeployRequest{Location: "web", Spec: makeSpec(t, cas, app, func(s *codeserverpb.VersionSpec) {
			s.DepsRoot = deps
		})})
		require.NoError(t, err)
		return forkedNow(t, d)
	}, "a version is forked")
	sleeps := func() (found []string) {
		for _, p := range processesOf(dir) {
			if strings.Contains(p, "sleep 3600") {
				found = append(found, p)
			}
		}
		return found
	}
	require.NotEmpty(t, sleeps())
	server.kill()
	eventually(t, func() bool { return len(processesOf(dir)) == 0 }, "no process is left")
}

// TestKillDeploy kills the codeserver at any moment of a deploy. What is started next serves the version before or the
// one that was deployed, and no process is left.
func TestKillDeploy(t *testing.T) {
	rounds := 15
	if os.Getenv("PEXPRESS_SOAK") != "" {
		rounds = 200
	}
	dir := t.TempDir()
	cas, err := disk.Open(filepath.Join(dir, "cache"), disk.Options{})
	require.NoError(t, err)
	defer cas.Close()
	deploy := func(c *child, i int) (*codeserverpb.Deployed, error) {
		app := webApp(fmt.Sprint("word", i))
		w := wheel(t, "dep", member{name: "dep.py", content: fmt.Sprintf("N = %d\n", i/2)})
		spec := makeSpec(t, cas, app, func(s *codeserverpb.VersionSpec) {
			s.DepsRoot = depsTree(t, cas, map[string][]byte{"dep-1.0-py3-none-any.whl": w}).Proto()
		})
		return deployWith(t.Context(), c, &codeserverpb.DeployRequest{Location: "web", Spec: spec})
	}
	server := startChild(t, dir)
	defer func() { server.kill() }()
	begin := time.Now()
	d, err := deploy(server, 0)
	require.NoError(t, err)
	took := time.Since(begin)
	address, last := d.GetLocation().GetAddress(), 0
	random := rand.New(rand.NewPCG(1, 2))
	for i := 1; i <= rounds; i++ {
		done := make(chan error, 1)
		go func() {
			_, err := deploy(server, i)
			done <- err
		}()
		time.Sleep(time.Duration(random.Int64N(int64(2 * took))))
		server.kill()
		deployed := <-done == nil
		eventually(t, func() bool { return len(processesOf(dir)) == 0 }, "no process is left")
		b, err := os.ReadFile(filepath.Join(dir, "state", "state.json"))
		require.NoError(t, err)
		require.True(t, json.Valid(b))
		server = startChild(t, dir)
		want := map[string]bool{fmt.Sprint("word", i): true}
		if !deployed {
			want[fmt.Sprint("word", last)] = true
		}
		var got string
		eventually(t, func() bool {
			got, err = get(address, "/")
			return err == nil
		}, "it serves again")
		require.True(t, want[got], "round %d: serves %s after %d", i, got, last)
		if got == fmt.Sprint("word", i) {
			last = i
		}
	}
}

// diskCache opens the cache of a child.
func diskCache(t *testing.T, dir string) cache.CAS {
	c, err := disk.Open(filepath.Join(dir, "cache"), disk.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}
