package auth

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// errUnreachable marks an issuer that gave no usable answer.
var errUnreachable = errors.New("the issuer does not answer")

// sparing is a RoundTripper for an issuer's few documents. The library asks for the keys anew at each token whose key it
// does not know, which anyone can make up: here the last answer stands for a while, and its size is bounded.
type sparing struct {
	base http.RoundTripper
	now  func() time.Time
	mu   sync.Mutex
	last map[string]answer
}

type answer struct {
	at     time.Time
	header http.Header
	body   []byte
}

const (
	spareFor    = 10 * time.Second
	maxDocument = 1 << 20
)

func newSparing(base http.RoundTripper, now func() time.Time) *sparing {
	if base == nil {
		base = http.DefaultTransport
	}
	return &sparing{base: base, now: now, last: map[string]answer{}}
}

// RoundTrip implements http.RoundTripper.
func (s *sparing) RoundTrip(req *http.Request) (*http.Response, error) {
	key := req.URL.String()
	s.mu.Lock()
	a, ok := s.last[key]
	s.mu.Unlock()
	if !ok || s.now().Sub(a.at) >= spareFor {
		var err error
		if a, err = s.fetch(req); err != nil {
			return nil, fmt.Errorf("%w: %w", errUnreachable, err)
		}
		s.mu.Lock()
		s.last[key] = a
		s.mu.Unlock()
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: a.header.Clone(), Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)),
	}, nil
}

func (s *sparing) fetch(req *http.Request) (answer, error) {
	resp, err := s.base.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("%s answered %s", req.URL, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err == nil && len(body) > maxDocument {
		err = fmt.Errorf("%s is longer than %d bytes", req.URL, maxDocument)
	}
	return answer{at: s.now(), header: resp.Header, body: body}, err
}
