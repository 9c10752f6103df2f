package s3test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/s3"
)

// VersityVariable names the environment variable that says where versitygw is.
const VersityVariable = "PEXPRESS_TEST_VERSITYGW"

// Versity is a versitygw process that serves one bucket out of a directory of the test's.
type Versity struct {
	Endpoint  string
	Bucket    string
	AccessKey string
	SecretKey string

	t       testing.TB
	binary  string
	address string
	dir     string
	cmd     *exec.Cmd
}

// StartVersity starts versitygw over an empty bucket, until the test ends. It skips the test if the program is not there.
func StartVersity(t testing.TB) *Versity {
	t.Helper()
	binary := os.Getenv(VersityVariable)
	if binary == "" {
		t.Skip("set " + VersityVariable + " to the program versitygw to run this test, as the Makefile does")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	v := &Versity{
		Endpoint: "http://" + address, Bucket: "cache", AccessKey: "access", SecretKey: "secret-key",
		t: t, binary: binary, address: address, dir: t.TempDir(),
	}
	require.NoError(t, os.Mkdir(filepath.Join(v.dir, v.Bucket), 0o755))
	v.Start()
	t.Cleanup(v.Stop)
	return v
}

// Start starts the process, over what an earlier one left, and returns when it listens.
func (v *Versity) Start() {
	v.t.Helper()
	v.cmd = exec.Command(v.binary, "--access", v.AccessKey, "--secret", v.SecretKey, "--port", v.address,
		"--keep-alive", "--quiet", "posix", v.dir)
	require.NoError(v.t, v.cmd.Start())
	require.Eventually(v.t, func() bool {
		c, err := net.Dial("tcp", v.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, time.Minute, 20*time.Millisecond, "versitygw does not listen on %s", v.address)
}

// Stop kills the process, as a machine that fails would.
func (v *Versity) Stop() {
	if v.cmd == nil {
		return
	}
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait() // killed, it always has an error
	v.cmd = nil
}

// Env returns what programs need in their environment to be let in.
func (v *Versity) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + v.AccessKey, "AWS_SECRET_ACCESS_KEY=" + v.SecretKey, "AWS_REGION=us-east-1"}
}

// Options returns how to open the bucket.
func (v *Versity) Options() s3.Options {
	return s3.Options{
		Bucket: v.Bucket, Endpoint: v.Endpoint, PathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(v.AccessKey, v.SecretKey, ""),
	}
}
