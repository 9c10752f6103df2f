package s3_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
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
