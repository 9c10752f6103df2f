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
	"github.com/pexpress/pexpress/cache/merkle"
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

// request asks an origin for a URI. The caller closes what it returns.
func (s *service) request(ctx context.Context, l *lookup, i int, uri string) (*body, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" {
		return nil, &originError{codes.NotFound, fmt.Errorf("URI %d is not a URL that can be fetched", i)}
	}
	if err := s.Allow.check(u); err != nil {
		return nil, at(u, codes.PermissionDenied, "%w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, at(u, codes.NotFound, "the URL is not one")
	}
	req.Header = l.q.headers[i].Clone()
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", userAgent)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, at(u, codeOf(err), "%w", bare(err))
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		err = at(u, codeOfStatus(resp.StatusCode), "the origin answers %d", resp.StatusCode)
	case resp.ContentLength > s.MaxBytes:
		err = at(u, codes.ResourceExhausted, "it has %d bytes, more than the %d allowed", resp.ContentLength, s.MaxBytes)
	default:
		return &body{ReadCloser: resp.Body, u: u, size: resp.ContentLength, left: s.MaxBytes}, nil
	}
	return nil, errors.Join(err, resp.Body.Close())
}

// download fetches one URI into the CAS.
func (s *service) download(ctx context.Context, cas cache.CAS, l *lookup, i int, uri string) (digest.Digest, error) {
	b, err := s.request(ctx, l, i, uri)
	if err != nil {
		return digest.Digest{}, err
	}
	defer b.Close()
	if sum, ok := l.q.sums.sha256(); ok && l.fn == digest.SHA256 && b.size >= 0 {
		d := l.fn.FromSum(sum, b.size)
		err := cas.Put(ctx, d, b)
		if errors.Is(err, digest.ErrMismatch) {
			return d, at(b.u, codes.Aborted, "its content is not what checksum.sri says: %w", err)
		}
		return d, b.or(err)
	}
	f, d, err := s.spooled(l, b)
	if err != nil {
		return digest.Digest{}, err
	}
	defer f.Close()
	return d, cas.Put(ctx, d, f)
}

// downloadDirectory fetches one URI, an archive, and unpacks it into the CAS. Nothing of it is looked at before all of it
// is known to have the checksum that was asked for.
func (s *service) downloadDirectory(ctx context.Context, cas cache.CAS, l *lookup, i int, uri string) (digest.Digest, error) {
	b, err := s.request(ctx, l, i, uri)
	if err != nil {
		return digest.Digest{}, err
	}
	defer b.Close()
	f, archive, err := s.spooled(l, b)
	if err != nil {
		return digest.Digest{}, err
	}
	defer f.Close()
	root, err := s.unpack(ctx, cas, f, archive.Size(), l.q.directory)
	switch {
	case errors.Is(err, errLarge):
		return root, at(b.u, codes.ResourceExhausted, "%w", err)
	case errors.Is(err, errArchive), errors.Is(err, merkle.ErrPath):
		return root, at(b.u, codes.Aborted, "%w", err)
	case err != nil && ctx.Err() != nil:
		return root, at(b.u, codeOf(ctx.Err()), "unpack: %w", err)
	}
	return root, err
}

// spooled returns a file of content whose digest is known only at its end.
func (s *service) spooled(l *lookup, b *body) (*os.File, digest.Digest, error) {
	f, err := unnamed(s.Spool)
	if err != nil {
		return nil, digest.Digest{}, err
	}
	h, v := l.fn.NewHasher(), l.q.sums.verifier()
	if _, err = io.Copy(io.MultiWriter(f, h, v), b); err != nil {
		err = b.or(err)
	} else if !v.ok() {
		err = at(b.u, codes.Aborted, "its content is not what checksum.sri says")
	} else {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, digest.Digest{}, errors.Join(err, f.Close())
	}
	return f, h.Digest(), nil
}

// body reads what an origin sends, and remembers how that failed: the rest is the cache's failure.
type body struct {
	io.ReadCloser
	u    *url.URL
	size int64 // that the origin declares, less than 0 for none
	left int64
	err  error
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
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
