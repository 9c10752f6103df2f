package s3

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// requestsAtOnce bounds the reads of packs of one node that are under way, and its other requests.
	requestsAtOnce = 64
	// attempts is how often a request is tried that failed in a way that may pass: 5xx, SlowDown, a broken connection.
	attempts = 6
	// baseTime and minRate bound a request: it may take baseTime, and longer the more bytes it carries.
	baseTime = 30 * time.Second
	minRate  = 256 << 10 // bytes a second
	// firstBackoff bounds the pause before the second try, maxBackoff every one.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
	// idleTime is for how long a body may bring nothing.
	idleTime = 30 * time.Second
	// deleteBatch is the most keys that one DeleteObjects takes.
	deleteBatch = 1000
)

// Client is a bucket on S3 or whatever speaks its protocol.
type Client struct {
	api    *s3.Client
	o      Options
	prefix string
	slots  chan struct{}
	reads  chan struct{} // slots of packs' bodies, which last as long as who reads them likes
}

var _ Bucket = (*Client)(nil)

// begin takes a slot for a request, and bounds its time.
func (c *Client) begin(ctx context.Context, bytes int64) (context.Context, func(), error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, baseTime+time.Duration(bytes)*time.Second/minRate)
	return ctx, func() {
		cancel()
		<-c.slots
	}, nil
}

func (c *Client) key(k string) *string { return aws.String(c.prefix + k) }

// Put implements Bucket. A second try of a put that was done after all finds the object there (412), which is success. That
// the first try is still under way (409) is none: it may yet fail.
func (c *Client) Put(ctx context.Context, key string, body []byte) (Meta, error) {
	pause := backoff(cmp.Or(c.o.backoff, firstBackoff))
	for n := 1; ; n++ {
		m, err := c.put(ctx, key, body, func(in *s3.PutObjectInput) { in.IfNoneMatch = aws.String("*") })
		switch {
		case isStatus(err, http.StatusPreconditionFailed):
			return m, nil
		case isCode(err, "NotImplemented"):
			return c.put(ctx, key, body, func(*s3.PutObjectInput) {})
		case !isStatus(err, http.StatusConflict) || n == attempts:
			return m, err
		}
		d, _ := pause(n, err) // never fails
		if err := sleep(ctx, d); err != nil {
			return Meta{}, err
		}
	}
}

// Swap implements Bucket.
func (c *Client) Swap(ctx context.Context, key string, body []byte, etag string) (Meta, error) {
	m, err := c.put(ctx, key, body, func(in *s3.PutObjectInput) {
		if etag == "" {
			in.IfNoneMatch = aws.String("*")
		} else {
			in.IfMatch = aws.String(etag)
		}
	})
	if isCode(err, "NotImplemented") {
		return Meta{}, fmt.Errorf("%w: %w", ErrNoConditionalPut, err)
	}
	return m, err
}

func (c *Client) put(ctx context.Context, key string, body []byte, more func(*s3.PutObjectInput)) (Meta, error) {
	ctx, end, err := c.begin(ctx, int64(len(body)))
	if err != nil {
		return Meta{}, err
	}
	defer end()
	in := &s3.PutObjectInput{
		Bucket: &c.o.Bucket, Key: c.key(key), Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
		ServerSideEncryption: types.ServerSideEncryption(c.o.SSE),
	}
	if c.o.SSEKey != "" {
		in.SSEKMSKeyId = &c.o.SSEKey
	}
	more(in)
	out, err := c.api.PutObject(ctx, in)
	if err != nil {
		return Meta{Date: dateOf(err)}, classify(err)
	}
	return Meta{ETag: aws.ToString(out.ETag), Date: responseDate(out.ResultMetadata)}, nil
}

// Get implements Bucket. The slot is held until the body is closed.
func (c *Client) Get(ctx context.Context, key string, o GetOptions) (*Object, error) {
	slots := c.slots
	if strings.HasPrefix(key, packDir) {
		slots = c.reads // slow readers of blobs must not keep the node from the manifest
	}
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	end := func() {
		cancel()
		<-slots
	}
	// The time is that of the answer's beginning; after it, the body may not stand still.
	timer := time.AfterFunc(baseTime, cancel)
	in := &s3.GetObjectInput{Bucket: &c.o.Bucket, Key: c.key(key)}
	if o.Offset > 0 || o.Length > 0 {
		in.Range = aws.String(rangeOf(o))
	}
	if o.IfNoneMatch != "" {
		in.IfNoneMatch = &o.IfNoneMatch
	}
	out, err := c.api.GetObject(ctx, in)
	if err != nil {
		timer.Stop()
		end()
		return nil, classify(err)
	}
	m := Meta{ETag: aws.ToString(out.ETag), Modified: aws.ToTime(out.LastModified), Date: responseDate(out.ResultMetadata)}
	return &Object{Meta: m, Body: &body{ReadCloser: out.Body, timer: timer, end: end}}, nil
}

func rangeOf(o GetOptions) string {
	if o.Length == 0 {
		return fmt.Sprintf("bytes=%d-", o.Offset)
	}
	return fmt.Sprintf("bytes=%d-%d", o.Offset, o.Offset+o.Length-1)
}

// body is the body of an answer. It fails when nothing comes for idleTime.
type body struct {
	io.ReadCloser
	timer *time.Timer
	end   func()
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(idleTime)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	if b.end != nil {
		b.end()
		b.end = nil
	}
	return err
}

// List implements Bucket.
func (c *Client) List(ctx context.Context, prefix, after string) (Page, error) {
	ctx, end, err := c.begin(ctx, 0)
	if err != nil {
		return Page{}, err
	}
	defer end()
	in := &s3.ListObjectsV2Input{Bucket: &c.o.Bucket, Prefix: c.key(prefix)}
	if after != "" {
		in.StartAfter = c.key(after)
	}
	out, err := c.api.ListObjectsV2(ctx, in)
	if err != nil {
		return Page{}, classify(err)
	}
	p := Page{More: aws.ToBool(out.IsTruncated), Date: responseDate(out.ResultMetadata)}
	for _, o := range out.Contents {
		key := strings.TrimPrefix(aws.ToString(o.Key), c.prefix)
		p.Objects = append(p.Objects, Info{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)})
	}
	return p, nil
}

// Delete implements Bucket.
func (c *Client) Delete(ctx context.Context, keys []string) error {
	for len(keys) > 0 {
		n := min(len(keys), deleteBatch)
		if err := c.deleteBatch(ctx, keys[:n]); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

func (c *Client) deleteBatch(ctx context.Context, keys []string) error {
	ctx, end, err := c.begin(ctx, 0)
	if err != nil {
		return err
	}
	defer end()
	del := &types.Delete{Quiet: aws.Bool(true)}
	for _, k := range keys {
		del.Objects = append(del.Objects, types.ObjectIdentifier{Key: c.key(k)})
	}
	out, err := c.api.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: &c.o.Bucket, Delete: del})
	if err != nil {
		return classify(err)
	}
	for _, e := range out.Errors {
		if aws.ToString(e.Code) != "NoSuchKey" {
			return fmt.Errorf("delete %s: %s: %s", aws.ToString(e.Key), aws.ToString(e.Code), aws.ToString(e.Message))
		}
	}
	return nil
}

// classify turns the answers that the log acts on into its errors. A missing bucket is not a missing object.
func classify(err error) error {
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.HTTPStatusCode() {
	case http.StatusNotFound:
		if isCode(err, "NoSuchKey") || isCode(err, "NotFound") {
			return fmt.Errorf("%w: %w", ErrNoObject, err)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %w", ErrShort, err)
	case http.StatusNotModified:
		return &NotModified{Date: dateOf(err)}
	case http.StatusPreconditionFailed, http.StatusConflict:
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}

func isStatus(err error, status int) bool {
	var answer *smithyhttp.ResponseError
	return errors.As(err, &answer) && answer.HTTPStatusCode() == status
}

func isCode(err error, code string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == code
}
