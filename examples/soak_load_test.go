package examples

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// results is what clients saw.
type results struct {
	mu       sync.Mutex
	answers  []answer
	failures []string
}

func (r *results) add(kind string, from, seen time.Time, said string, err error) {
	version, _, _ := strings.Cut(strings.TrimSpace(said), " ")
	number, bad := strconv.Atoi(version)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err = errors.Join(err, bad); err != nil {
		r.failures = append(r.failures, fmt.Sprintf("%s: after %s: %v", kind, time.Since(from), err))
		return
	}
	r.answers = append(r.answers, answer{kind, from, seen, number})
}

// soakKinds are the kinds of requests.
var soakKinds = []string{
	"http kept alive", "http posted", "http on its own connection", "http stream",
	"grpc", "grpc stream", "grpcio", "grpcio stream",
}

// soakRate is how many requests a second there are of each HTTP and gRPC. A twentieth of them are streams, of a second each.
const soakRate = 300

// load sends requests until the returned function is called, which returns when all have been answered.
func (s *soak) load(random *rand.Rand, python string) (stop func()) {
	kept := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}, Timeout: 2 * time.Minute}
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}
	conn, err := grpc.NewClient("passthrough:///"+s.addresses["rpc"], grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})), grpc.WithDisableRetry())
	require.NoError(s.t, err)
	web := "http://" + s.addresses["web"]
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	seeds := [2]uint64{random.Uint64(), random.Uint64()}
	wg.Go(func() {
		every(ctx, time.Second/soakRate, rand.New(rand.NewPCG(seeds[0], 0)), &wg, func(draw int) {
			switch {
			case draw < 5:
				s.httpStream(kept, web)
			case draw < 40:
				s.http("http kept alive", func() (*http.Response, error) { return kept.Get(web) })
			case draw < 60:
				s.http("http posted", func() (*http.Response, error) { return kept.Post(web, "text/plain", strings.NewReader("sent")) })
			default:
				s.http("http on its own connection", func() (*http.Response, error) { return fresh.Get(web) })
			}
		})
	})
	const ofPython = 20
	wg.Go(func() {
		every(ctx, time.Second/(soakRate-ofPython), rand.New(rand.NewPCG(seeds[1], 0)), &wg, func(draw int) {
			if draw < 5 {
				s.grpcStream(conn)
			} else {
				s.grpc(conn)
			}
		})
	})
	stopPython := s.grpcio(python, ofPython)
	return func() {
		cancel()
		wg.Wait()
		stopPython()
		require.NoError(s.t, conn.Close())
		kept.CloseIdleConnections()
	}
}

// maxUnderWay bounds the requests of a kind that wait for an answer: a machine that is too slow for the rate is asked for
// less, and not for more and more.
const maxUnderWay = 200

// every begins something with a number below 100 drawn for it, at a steady rate, until ctx ends. What is slow delays nothing
// before maxUnderWay.
func every(ctx context.Context, pause time.Duration, random *rand.Rand, wg *sync.WaitGroup, begin func(draw int)) {
	underWay := make(chan struct{}, maxUnderWay)
	for next := time.Now(); ctx.Err() == nil; time.Sleep(time.Until(next)) {
		draw := random.IntN(100)
		underWay <- struct{}{}
		wg.Go(func() {
			begin(draw)
			<-underWay
		})
		if next = next.Add(pause); time.Since(next) > time.Second {
			next = time.Now() // what was too much is not made up for
		}
	}
}

func (s *soak) http(kind string, send func() (*http.Response, error)) {
	from := time.Now()
	resp, err := send()
	seen := time.Now()
	if err != nil {
		s.add(kind, from, seen, "0", err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
	case resp.StatusCode != http.StatusOK:
		err = fmt.Errorf("%s: %q", resp.Status, body)
	case kind == "http posted" && !strings.HasSuffix(string(body), " sent"):
		err = fmt.Errorf("it answers %q to what was sent", body)
	}
	s.add(kind, from, seen, string(body), err)
}

// httpStream reads an answer of ten lines over a second, all of one version.
func (s *soak) httpStream(client *http.Client, url string) {
	from := time.Now()
	resp, err := client.Get(url + "/stream")
	seen := time.Now()
	var lines []string
	if err == nil {
		defer resp.Body.Close()
		body := bufio.NewScanner(resp.Body)
		for body.Scan() {
			lines = append(lines, body.Text())
		}
		err = errors.Join(body.Err(), oneVersion(lines, 10))
	}
	s.add("http stream", from, seen, strings.Join(lines, " "), err)
}

func oneVersion(lines []string, count int) error {
	if len(lines) != count {
		return fmt.Errorf("%d answers in a stream of %d: %q", len(lines), count, lines)
	}
	for _, l := range lines {
		if l != lines[0] {
			return fmt.Errorf("a stream of more than one version: %q", lines)
		}
	}
	return nil
}

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte{}, data...)
	return nil
}

func (s *soak) grpc(conn *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	message, reply := []byte("x"), []byte{}
	from := time.Now()
	err := conn.Invoke(ctx, "/soak.Soak/Unary", &message, &reply)
	s.add("grpc", from, time.Now(), string(reply)+" ", err)
}

// grpcStream sends ten messages over a second, each of which is answered, by one version.
func (s *soak) grpcStream(conn *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	from, seen := time.Now(), time.Time{}
	var lines []string
	err := func() error {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/soak.Soak/Stream")
		if err != nil {
			return err
		}
		message, reply := []byte("x"), []byte{}
		for range 10 {
			if err := stream.SendMsg(&message); err != nil {
				return errors.Join(err, stream.RecvMsg(&reply))
			}
			if err := stream.RecvMsg(&reply); err != nil {
				return err
			}
			if seen.IsZero() {
				seen = time.Now()
			}
			lines = append(lines, string(reply))
			time.Sleep(100 * time.Millisecond)
		}
		if err := stream.CloseSend(); err != nil {
			return err
		}
		if err := stream.RecvMsg(&reply); !errors.Is(err, io.EOF) {
			return fmt.Errorf("the stream ends with %w", err)
		}
		return oneVersion(lines, 10)
	}()
	s.add("grpc stream", from, seen, strings.Join(lines, " "), err)
}

// grpcio has Python's client send that many requests a second until the returned function is called.
func (s *soak) grpcio(python string, rate int) (stop func()) {
	cmd := exec.Command(python, "testdata/soak_client.py", s.addresses["rpc"], strconv.Itoa(rate))
	stdin, err := cmd.StdinPipe()
	require.NoError(s.t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(s.t, err)
	cmd.Stderr = os.Stderr
	require.NoError(s.t, cmd.Start())
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var a struct {
				Kind       string
				From, Seen float64
				Said       []string
				Error      string
			}
			err := json.Unmarshal(lines.Bytes(), &a)
			switch {
			case err != nil:
			case a.Error != "":
				err = errors.New(a.Error)
			case a.Kind == "grpcio stream":
				err = oneVersion(a.Said, 10)
			}
			s.add(a.Kind, seconds(a.From), seconds(a.Seen), strings.Join(a.Said, " "), err)
		}
	}()
	return func() {
		require.NoError(s.t, stdin.Close())
		<-read
		require.NoError(s.t, cmd.Wait())
	}
}

// seconds is a time of Python's. It has no monotonic reading: compared with it, other times have none either.
func seconds(s float64) time.Time { return time.UnixMicro(int64(s * 1e6)) }
