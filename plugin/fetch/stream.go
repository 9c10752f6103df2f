package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pexpress/pexpress/plugin/lock"
)

// keepFrom is the size from which a file's beginning is kept on disk, so that a later run goes on where this one ended.
const keepFrom = 16 << 20

// retries is how often in a row a connection may fail without bringing a byte.
const retries = 4

// stream reads one file, over several connections if need be.
type stream struct {
	ctx     context.Context //nolint:containedctx // a stream is one request's worth
	fetcher *Fetcher
	url     string
	name    string
	body    io.ReadCloser
	offset  int64
	fails   int
	part    string   // where the beginning is kept, "" for nowhere
	kept    *os.File // open for appending
	resumed bool
	add     func(int64)
}

// localPath returns the file that a wheel is, "" for one on the network.
func localPath(w lock.Wheel) string {
	if u, err := url.Parse(w.URL); err == nil && u.Scheme == "file" && w.Path == "" {
		return u.Path
	}
	return w.Path
}

// start opens what was kept of an earlier run, if anything, else the connection.
func (s *stream) start() error {
	if s.part == "" {
		return s.connect()
	}
	if err := os.MkdirAll(filepath.Dir(s.part), 0o700); err != nil {
		return err
	}
	kept, err := os.OpenFile(s.part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if !lockFile(kept) {
		// Another process is fetching it too: each goes its own way.
		s.part = ""
		return errors.Join(kept.Close(), s.connect())
	}
	s.kept = kept
	st, err := kept.Stat()
	if err != nil {
		return err
	}
	if st.Size() == 0 {
		return s.connect()
	}
	s.resumed = true
	s.body = io.NopCloser(io.NewSectionReader(kept, 0, st.Size()))
	_, err = kept.Seek(0, io.SeekEnd)
	return err
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for {
		n, err := s.body.Read(p)
		s.took(p[:n])
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if s.url == "" {
			return 0, err
		}
		if done, err := s.next(err); done {
			return 0, err
		}
	}
}

// took accounts for bytes that are handed on.
func (s *stream) took(b []byte) {
	if len(b) == 0 {
		return
	}
	s.offset += int64(len(b))
	s.fails = 0
	if s.add != nil {
		s.add(int64(len(b)))
	}
	if _, live := s.body.(*response); live && s.kept != nil {
		if _, err := s.kept.Write(b); err != nil {
			s.discard() // no room to keep it: the fetch itself goes on
		}
	}
}

// next goes on after the present body has ended: with the rest if there is one.
func (s *stream) next(err error) (done bool, _ error) {
	if r, live := s.body.(*response); live && errors.Is(err, io.EOF) && r.complete() {
		return true, io.EOF
	}
	s.body.Close()
	if s.ctx.Err() != nil {
		return true, s.ctx.Err()
	}
	if _, live := s.body.(*response); live {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err := s.pause(fmt.Errorf("fetch %s: the connection broke after %d bytes: %w", s.name, s.offset, err)); err != nil {
			return true, err
		}
	}
	err = s.connect()
	if errors.Is(err, errNoMore) {
		s.body = io.NopCloser(strings.NewReader(""))
		return true, io.EOF
	}
	return err != nil, err
}

// Close ends the connection and keeps what has come.
func (s *stream) Close() error {
	var err error
	if s.body != nil {
		err = s.body.Close()
	}
	if s.kept != nil {
		err = errors.Join(err, s.kept.Close())
		s.kept = nil
	}
	return err
}

// discard forgets what was kept.
func (s *stream) discard() {
	if s.kept != nil {
		s.kept.Close()
		s.kept = nil
	}
	if s.part != "" {
		_ = os.Remove(s.part)
	}
}

// errNoMore says that the server has nothing from the offset on.
var errNoMore = errors.New("nothing more")

// connect asks for the file from the offset on, again and again where that may help.
func (s *stream) connect() error {
	for {
		body, retry, err := s.request()
		if err == nil {
			s.body = body
			return nil
		}
		if errors.Is(err, errNoMore) || s.ctx.Err() != nil {
			return errors.Join(err, s.ctx.Err())
		}
		if !retry {
			return err
		}
		if err := s.pause(err); err != nil {
			return err
		}
	}
}

// pause waits before another try after err, the longer the more have failed in a row; it returns why there is none.
func (s *stream) pause(err error) error {
	if s.fails++; s.fails > retries {
		return err
	}
	select {
	case <-time.After(time.Duration(s.fails*s.fails) * s.fetcher.backoff):
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *stream) request() (_ *response, retry bool, _ error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %s: %w", ErrRefused, s.name, redact(err))
	}
	if s.offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(s.offset, 10)+"-")
	}
	s.fetcher.config.authorize(req)
	client, err := s.fetcher.client()
	if err != nil {
		return nil, false, err
	}
	resp, err := client.Do(req)
	if err != nil {
		var untrusted *tls.CertificateVerificationError
		return nil, !errors.As(err, &untrusted), fmt.Errorf("fetch %s: %w", s.name, redact(err))
	}
	host := req.URL.Host
	switch {
	case resp.StatusCode == http.StatusOK:
		// A server without ranges begins anew: skip what is there already.
		if _, err := io.CopyN(io.Discard, resp.Body, s.offset); err != nil {
			resp.Body.Close()
			return nil, true, fmt.Errorf("fetch %s from %s: %w", s.name, host, err)
		}
		return &response{resp.Body, resp.ContentLength - s.offset, resp.ContentLength >= 0}, false, nil
	case resp.StatusCode == http.StatusPartialContent &&
		strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", s.offset)):
		return &response{resp.Body, resp.ContentLength, resp.ContentLength >= 0}, false, nil
	}
	resp.Body.Close()
	return nil, retriable(resp.StatusCode), s.refusal(resp.StatusCode, host)
}

func retriable(code int) bool {
	return code == http.StatusTooManyRequests || code >= 500 && code != http.StatusNotImplemented
}

// refusal says what a status means for the user.
func (s *stream) refusal(code int, host string) error {
	switch code {
	case http.StatusRequestedRangeNotSatisfiable:
		return errNoMore
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return fmt.Errorf("fetch %s: %s answers %d %s: give credentials for it in ~/.netrc, or in the index URL that pip or uv is configured with",
			s.name, host, code, http.StatusText(code))
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("fetch %s: %s no longer has it (%d): run pexpress lock again", s.name, host, code)
	}
	return fmt.Errorf("fetch %s: %s answers %d %s", s.name, host, code, http.StatusText(code))
}

// response is the body of an HTTP answer that knows whether all of it came.
type response struct {
	io.ReadCloser
	left  int64
	known bool
}

// Read implements io.Reader.
func (r *response) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.left -= int64(n)
	return n, err
}

func (r *response) complete() bool { return !r.known || r.left <= 0 }

// redact removes a password from the URL in an error of package http.
func redact(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
