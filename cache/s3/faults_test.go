package s3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/s3/s3test"
)

// chaos is a network and an S3 at their worst.
type chaos struct {
	mu   sync.Mutex
	rng  *rand.Rand
	rate float64 // of each request to go wrong, in one of the ways below
	ways []string
	hits map[string]int
	skew time.Duration // of S3's clock
}

func newChaos(rate float64, ways ...string) *chaos {
	return &chaos{rng: rand.New(rand.NewPCG(1, 2)), rate: rate, ways: ways, hits: map[string]int{}}
}

// pick returns how this request goes wrong, "" for not at all.
func (c *chaos) pick() (string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rng.Float64() >= c.rate {
		return "", 0
	}
	way := c.ways[c.rng.IntN(len(c.ways))]
	c.hits[way]++
	return way, c.rng.IntN(1 << 20)
}

func (c *chaos) setRate(rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate = rate
}

// RoundTrip implements http.RoundTripper.
func (c *chaos) RoundTrip(r *http.Request) (*http.Response, error) {
	way, n := c.pick()
	switch way {
	case "500":
		return answer(r, 500, "InternalError"), nil
	case "slow down":
		return answer(r, 503, "SlowDown"), nil
	case "forbidden":
		return answer(r, 403, "AccessDenied"), nil
	case "refused":
		return nil, errors.New("chaos: connection refused")
	}
	if c.skew != 0 { // the client signs by the clock that it takes for S3's, and the server here has another one
		r = r.Clone(r.Context())
		r.Header.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if c.skew != 0 {
		c.shift(resp)
	}
	switch way {
	case "500 after it was done":
		resp.Body.Close()
		return answer(r, 500, "InternalError"), nil
	case "answer lost":
		resp.Body.Close()
		return nil, errors.New("chaos: connection reset")
	}
	if r.Method == http.MethodGet && resp.StatusCode < 300 && !strings.Contains(r.URL.RawQuery, "list-type") {
		resp.Body = &badBody{ReadCloser: resp.Body, way: way, at: n % max(int(resp.ContentLength), 1)}
	}
	return resp, nil
}

var modified = regexp.MustCompile(`<LastModified>[^<]*</LastModified>`)

// shift moves what S3 says of time.
func (c *chaos) shift(resp *http.Response) {
	if strings.Contains(resp.Request.URL.RawQuery, "list-type") {
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		b = modified.ReplaceAllFunc(b, func(m []byte) []byte {
			t, err := time.Parse("2006-01-02T15:04:05.999Z", string(m[len("<LastModified>"):len(m)-len("</LastModified>")]))
			if err != nil {
				return m
			}
			return []byte("<LastModified>" + t.Add(c.skew).Format("2006-01-02T15:04:05.999Z") + "</LastModified>")
		})
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	}
	for _, h := range []string{"Date", "Last-Modified"} {
		if t, err := http.ParseTime(resp.Header.Get(h)); err == nil {
			resp.Header.Set(h, t.Add(c.skew).UTC().Format(http.TimeFormat))
		}
	}
}

func answer(r *http.Request, code int, name string) *http.Response {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	body := "<Error><Code>" + name + "</Code><Message>chaos</Message></Error>"
	return &http.Response{
		StatusCode: code, Status: strconv.Itoa(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}, Body: io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)),
	}
}

// badBody is an object that comes back damaged.
type badBody struct {
	io.ReadCloser
	way string
	at  int // where it goes wrong
	n   int
}

func (b *badBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	from := b.n
	b.n += n
	hit := b.at >= from && b.at < b.n
	switch b.way {
	case "truncated":
		if b.n > b.at {
			return max(b.at-from, 0), io.EOF // as if that were all
		}
	case "broken":
		if b.n > b.at {
			return max(b.at-from, 0), io.ErrUnexpectedEOF
		}
	case "flipped":
		if hit {
			p[b.at-from] ^= 1 << (b.at % 8)
		}
	case "slow":
		time.Sleep(time.Millisecond)
	}
	return n, err
}

var allWays = []string{
	"500", "500 after it was done", "slow down", "refused", "answer lost", "truncated", "broken", "flipped", "slow",
}

// TestFaults writes and reads through a network that fails one request in eight. Callers that get an error try again, as
// clients do. Nothing wrong is served, an error is no miss, and what was acknowledged is there.
func TestFaults(t *testing.T) {
	o := fakeS3(t)
	bad := newChaos(0.12, allWays...)
	faulty := o
	faulty.Transport = bad
	a, b := connect(t, faulty), connect(t, faulty)
	all := append(blobs(40, 300, 900), blobs(41, 12, 400<<10)...)
	all = append(all, blobs(42, 1, 18<<20)...)
	var g errgroup.Group
	g.SetLimit(8)
	for i, blob := range all {
		g.Go(func() error {
			writer, reader := a.Namespace("main"), b.Namespace("main")
			if i%2 == 0 {
				writer, reader = reader, writer
			}
			err := insist(func() error { return writer.Put(t.Context(), blob.Digest, bytes.NewReader(blob.Data)) })
			if err != nil {
				return err
			}
			return insist(func() error { return same(t, reader, blob) })
		})
	}
	require.NoError(t, g.Wait())
	require.NoError(t, insist(func() error { return a.Compact(t.Context()) }))
	require.NoError(t, insist(func() error { _, err := b.GC(t.Context(), s3.GCOptions{}); return err }))
	for _, way := range allWays {
		require.Positive(t, bad.hits[way], way)
	}
	calm := connect(t, o).Namespace("main")
	for _, blob := range all {
		require.NoError(t, same(t, calm, blob))
	}
	bad.setRate(0)
	missing, err := a.Namespace("main").FindMissing(t.Context(), digests(all))
	require.NoError(t, err)
	require.Empty(t, missing, "a node recovers by itself")
}

// insist tries again what failed, and gives up when something is said to be missing.
func insist(f func() error) error {
	var err error
	for range 20 {
		if err = f(); err == nil || errors.Is(err, cache.ErrNotFound) {
			return err
		}
	}
	return err
}

func same(t *testing.T, c cache.CAS, want cache.Blob) error {
	got, err := cache.ReadBlob(t.Context(), c, want.Digest, 1<<30)
	if err == nil && !bytes.Equal(want.Data, got) {
		return errors.New("the bytes are wrong, and nobody noticed")
	}
	return err
}

// TestErrorsAreNoMisses answers every request with an error, of each kind.
func TestErrorsAreNoMisses(t *testing.T) {
	for _, way := range []string{"500", "slow down", "forbidden", "refused"} {
		t.Run(way, func(t *testing.T) {
			o := fakeS3(t)
			bad := newChaos(0, way)
			o = s3.Impatient(o)
			o.Transport = bad
			now := time.Now()
			var mu sync.Mutex
			o.Now = func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return now
			}
			c := connect(t, o).Namespace("main")
			bs := blobs(43, 2, 100)
			require.NoError(t, c.PutMany(t.Context(), bs[:1]))
			bad.setRate(1)
			check := func(want error) {
				for _, err := range []error{
					func() error { _, err := c.FindMissing(t.Context(), digests(bs)); return err }(),
					func() error { _, err := c.Get(t.Context(), bs[1].Digest); return err }(),
					func() error { _, err := c.GetAction(t.Context(), bs[1].Digest); return err }(),
					c.PutMany(t.Context(), bs[1:]),
				} {
					require.Error(t, err)
					require.NotErrorIs(t, err, cache.ErrNotFound)
				}
				missing, err := c.FindMissing(t.Context(), digests(bs[:1]))
				require.ErrorIs(t, err, want)
				require.Empty(t, missing)
			}
			check(nil)
			mu.Lock()
			now = now.Add(s3.Freshness)
			mu.Unlock()
			check(s3.ErrStale)
			bad.setRate(0)
			missing, err := c.FindMissing(t.Context(), digests(bs))
			require.NoError(t, err)
			require.Equal(t, digests(bs[1:]), missing)
		})
	}
}

// TestClockOfS3 is hours off, either way: only S3's own dates are compared with each other.
func TestClockOfS3(t *testing.T) {
	for _, skew := range []time.Duration{-9 * time.Hour, 9 * time.Hour} {
		o := fakeS3(t)
		bad := newChaos(0)
		bad.skew = skew
		o.Transport = bad
		s := connect(t, o)
		bs := blobs(44, 10, 1000)
		require.NoError(t, s.Namespace("main").PutMany(t.Context(), bs))
		r, err := s.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
		require.NoError(t, err)
		require.EqualValues(t, 10, r.CondemnedRecords)
		r, err = s.GC(t.Context(), s3.GCOptions{})
		require.NoError(t, err)
		require.Zero(t, r.DeletedPacks, "condemned a moment ago, whatever the clocks say")
		require.NoError(t, same(t, s.Namespace("main"), bs[0]))
	}
}

// TestTwoClocks: a gateway that dates its answers by another clock than its objects is refused before anything is
// acknowledged.
func TestTwoClocks(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	o := s3.Options{Manual: true}
	open(t, sim, o)
	s := open(t, twoClocks{sim}, o)
	bs := blobs(47, 1, 10)
	require.ErrorContains(t, s.Namespace("main").PutMany(t.Context(), bs), "set its clocks")
	require.Empty(t, sim.Keys("tail/"))
}

// twoClocks dates listings by another time zone.
type twoClocks struct{ *s3test.Sim }

func (b twoClocks) List(ctx context.Context, prefix, after string) (s3.Page, error) {
	p, err := b.Sim.List(ctx, prefix, after)
	for i := range p.Objects {
		p.Objects[i].Modified = p.Objects[i].Modified.Add(7 * time.Hour)
	}
	return p, err
}

// TestWithoutConditions: a bucket that ignores If-Match serves, and nothing of it is deleted.
func TestWithoutConditions(t *testing.T) {
	sim := s3test.NewSim(time.Now)
	sim.NoConditions = true
	s := open(t, sim, s3.Options{Manual: true})
	bs := blobs(45, 10, 100)
	require.NoError(t, s.Namespace("main").PutMany(t.Context(), bs))
	_, err := s.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
	require.ErrorIs(t, err, s3.ErrNoConditionalPut)
	require.ErrorIs(t, s.Compact(t.Context()), s3.ErrNoConditionalPut)
	require.NoError(t, same(t, open(t, sim, s3.Options{Manual: true}).Namespace("main"), bs[3]))
}

// TestServerStops kills the S3 server and starts it again, under nodes that stay.
func TestServerStops(t *testing.T) {
	v := s3test.StartVersity(t)
	s := connect(t, v.Options())
	c := s.Namespace("main")
	bs := blobs(46, 40, 2000)
	require.NoError(t, c.PutMany(t.Context(), bs[:20]))
	v.Stop()
	_, err := c.Get(t.Context(), bs[0].Digest)
	require.Error(t, err)
	require.NotErrorIs(t, err, cache.ErrNotFound)
	v.Start()
	for _, b := range bs[:20] {
		require.NoError(t, insist(func() error { return same(t, c, b) }))
	}
	require.NoError(t, insist(func() error { return c.PutMany(t.Context(), bs) }))
	r, err := s.GC(t.Context(), s3.GCOptions{MaxBytes: 1})
	require.NoError(t, err, "versitygw honours If-Match")
	require.EqualValues(t, 40, r.CondemnedRecords)
}
