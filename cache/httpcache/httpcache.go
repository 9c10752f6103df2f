// Package httpcache is a client of Bazel's HTTP cache protocol: the same two interfaces as a local cache, over GET, HEAD
// and PUT of /cas/HASH and /ac/HASH.
//
// The protocol has no batches, and asks for each blob by itself: where there is a choice, gRPC (package remote) is better.
package httpcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Cache is a cache at a URL.
type Cache struct {
	base   *url.URL
	client *http.Client
	header http.Header
}

var (
	_ cache.CAS         = (*Cache)(nil)
	_ cache.ActionCache = (*Cache)(nil)
)

// New returns a client of the cache at base, below which /cas and /ac are. The header goes with each request. A user and
// password in base become basic authentication.
func New(base string, client *http.Client, header http.Header) (*Cache, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("cache address %q: %w", base, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("cache address %q: use http://host:port/path or https://host/path", u.Redacted())
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return &Cache{base: u, client: client, header: header}, nil
}

// Close implements io.Closer.
func (c *Cache) Close() error {
	c.client.CloseIdleConnections()
	return nil
}

// do makes a request about a digest. A body is size bytes long.
func (c *Cache) do(ctx context.Context, method, kind string, d digest.Digest, body io.Reader, size int64) (*http.Response, error) {
	if d.IsZero() {
		return nil, fmt.Errorf("%w: no digest given", digest.ErrInvalid)
	}
	parts := []string{kind, d.Hash()}
	if f := d.Function(); f != digest.SHA256 {
		parts = append([]string{f.String()}, parts...)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(parts...).String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.ContentLength = size
	}
	for k, v := range c.header {
		req.Header[k] = v
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode < 300:
		return resp, nil
	case resp.StatusCode == http.StatusNotFound:
		err = cache.ErrNotFound
	default:
		says, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // what there is of it explains the status
		err = fmt.Errorf("the cache answered %s: %s", resp.Status, bytes.TrimSpace(says))
	}
	resp.Body.Close()
	return nil, err
}

// Get implements cache.CAS.
func (c *Cache) Get(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if d.IsEmpty() {
		return io.NopCloser(bytes.NewReader(nil)), ctx.Err()
	}
	resp, err := c.do(ctx, http.MethodGet, "cas", d, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	if n := resp.ContentLength; n >= 0 && n != d.Size() { // the URL has no size: this is another blob
		resp.Body.Close()
		return nil, cache.NotFound("blob", d)
	}
	return digest.NewReader(resp.Body, d), nil
}

// Put implements cache.CAS. Nothing is sent before it is known to be right: a request that breaks off leaves open what
// the cache has made of it.
func (c *Cache) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if d.IsZero() {
		return fmt.Errorf("put blob: %w: no digest given", digest.ErrInvalid)
	}
	body, done, err := spool(digest.NewReader(io.NopCloser(r), d), d.Size())
	if err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	defer done()
	if d.IsEmpty() {
		return ctx.Err()
	}
	if err := c.put(ctx, "cas", d, body, d.Size()); err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	return nil
}

func (c *Cache) put(ctx context.Context, kind string, d digest.Digest, body io.Reader, size int64) error {
	resp, err := c.do(ctx, http.MethodPut, kind, d, body, size)
	if errors.Is(err, cache.ErrNotFound) {
		return errors.New("the cache takes no PUT there: is the address right?") // no miss: nothing was asked for
	}
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// asksAtOnce is how many blobs are asked for at a time: enough to hide the latency of a remote cache.
const asksAtOnce = 16

// FindMissing implements cache.CAS.
func (c *Cache) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	absent := make(map[digest.Digest]*bool, len(ds))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(asksAtOnce)
	for _, d := range ds {
		if absent[d] != nil || d.IsEmpty() {
			continue
		}
		missing := new(bool)
		absent[d] = missing
		g.Go(func() (err error) {
			*missing, err = c.missing(gctx, d)
			return err
		})
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return nil, err
	}
	var missing []digest.Digest
	for _, d := range ds {
		if m := absent[d]; m != nil && *m {
			missing = append(missing, d)
			*m = false // once is enough
		}
	}
	return missing, nil
}

func (c *Cache) missing(ctx context.Context, d digest.Digest) (bool, error) {
	resp, err := c.do(ctx, http.MethodHead, "cas", d, nil, 0)
	if errors.Is(err, cache.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("blob %s: %w", d, err)
	}
	resp.Body.Close()
	return resp.ContentLength >= 0 && resp.ContentLength != d.Size(), nil
}

// GetActionResult implements cache.ActionCache.
func (c *Cache) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	resp, err := c.do(ctx, http.MethodGet, "ac", action, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("result of action %s: %w", action, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, cache.MaxMessage+1))
	if err == nil && len(b) > cache.MaxMessage {
		err = fmt.Errorf("it is longer than %d bytes", cache.MaxMessage)
	}
	ar := new(repb.ActionResult)
	if err == nil {
		err = proto.Unmarshal(b, ar)
	}
	if err != nil {
		return nil, fmt.Errorf("result of action %s: %w", action, err)
	}
	return ar, nil
}

// UpdateActionResult implements cache.ActionCache.
func (c *Cache) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(result)
	if err == nil {
		err = c.put(ctx, "ac", action, bytes.NewReader(b), int64(len(b)))
	}
	if err != nil {
		return fmt.Errorf("store the result of action %s: %w", action, err)
	}
	return nil
}

// Transport returns what requests of a Cache should go through.
func Transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = asksAtOnce
	t.ResponseHeaderTimeout = time.Minute
	return t
}
