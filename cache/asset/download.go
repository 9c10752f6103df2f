package asset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"google.golang.org/grpc/codes"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

const userAgent = "pexcache"

// originError is a failure that is the origin's, or of what was asked of it: the answer says so, the call succeeds.
type originError struct {
	code codes.Code
	err  error
}

func (e *originError) Error() string { return e.err.Error() }

func (e *originError) Unwrap() error { return e.err }

// at returns an originError that names the place, without what may be secret in it.
func at(u *url.URL, code codes.Code, format string, args ...any) error {
	return &originError{code, fmt.Errorf("fetch %s://%s%s: %w", u.Scheme, u.Host, u.EscapedPath(), fmt.Errorf(format, args...))}
}

// download fetches one URI into the CAS.
func (s *service) download(ctx context.Context, cas cache.CAS, l *lookup, i int, uri string) (digest.Digest, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" {
		return digest.Digest{}, &originError{codes.NotFound, fmt.Errorf("URI %d is not a URL that can be fetched", i)}
	}
	if err := s.Allow.check(u); err != nil {
		return digest.Digest{}, at(u, codes.PermissionDenied, "%w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return digest.Digest{}, at(u, codes.NotFound, "the URL is not one")
	}
	req.Header = l.q.headers[i].Clone()
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", userAgent)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return digest.Digest{}, at(u, codeOf(err), "%w", bare(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return digest.Digest{}, at(u, codeOfStatus(resp.StatusCode), "the origin answers %d", resp.StatusCode)
	}
	if resp.ContentLength > s.MaxBytes {
		return digest.Digest{}, at(u, codes.ResourceExhausted, "it has %d bytes, more than the %d allowed", resp.ContentLength, s.MaxBytes)
	}
	body := &body{r: resp.Body, u: u, left: s.MaxBytes}
	if sum, ok := l.q.sums.sha256(); ok && l.fn == digest.SHA256 && resp.ContentLength >= 0 {
		d := l.fn.FromSum(sum, resp.ContentLength)
		err := cas.Put(ctx, d, body)
		if errors.Is(err, digest.ErrMismatch) {
			return d, at(u, codes.Aborted, "its content is not what checksum.sri says: %w", err)
		}
		return d, body.or(err)
	}
	return s.spoolAndPut(ctx, cas, l, u, body)
}

// spoolAndPut stores content whose digest is known only at its end.
func (s *service) spoolAndPut(ctx context.Context, cas cache.CAS, l *lookup, u *url.URL, b *body) (digest.Digest, error) {
	f, err := os.CreateTemp(s.Spool, "asset-*")
	if err != nil {
		return digest.Digest{}, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return digest.Digest{}, err
	}
	h, v := l.fn.NewHasher(), l.q.sums.verifier()
	if _, err := io.Copy(io.MultiWriter(f, h, v), b); err != nil {
		return digest.Digest{}, b.or(err)
	}
	if !v.ok() {
		return digest.Digest{}, at(u, codes.Aborted, "its content is not what checksum.sri says")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return digest.Digest{}, err
	}
	d := h.Digest()
	return d, cas.Put(ctx, d, f)
}

// body reads what an origin sends, and remembers how that failed: the rest is the cache's failure.
type body struct {
	r    io.Reader
	u    *url.URL
	left int64
	err  error
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		b.err = at(b.u, codes.ResourceExhausted, "it has more bytes than the configuration allows")
		return 0, b.err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = at(b.u, codeOf(err), "%w", bare(err))
		b.err = err
	}
	return n, err
}

// or returns the origin's failure, if there was one, and else err.
func (b *body) or(err error) error {
	if b.err != nil {
		return b.err
	}
	return err
}

// bare takes the URL out of an error of package http: a query may hold a credential.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func codeOf(err error) codes.Code {
	switch {
	case errors.Is(err, errForbidden):
		return codes.PermissionDenied
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return codes.Unavailable
}

func codeOfStatus(code int) codes.Code {
	switch code {
	case http.StatusNotFound, http.StatusGone:
		return codes.NotFound
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return codes.PermissionDenied
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	}
	if code >= 500 {
		return codes.Unavailable
	}
	return codes.Aborted
}
