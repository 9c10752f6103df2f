package s3

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// multipart is a multipart upload.
type multipart struct {
	c    *Client
	key  *string
	id   *string
	date time.Time

	mu    sync.Mutex
	parts []types.CompletedPart
}

// Upload implements Bucket.
func (c *Client) Upload(ctx context.Context, key string) (Upload, error) {
	ctx, end, err := c.begin(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer end()
	in := &s3.CreateMultipartUploadInput{
		Bucket: &c.o.Bucket, Key: c.key(key),
		ServerSideEncryption: types.ServerSideEncryption(c.o.SSE),
	}
	if c.o.SSEKey != "" {
		in.SSEKMSKeyId = &c.o.SSEKey
	}
	out, err := c.api.CreateMultipartUpload(ctx, in)
	if err != nil {
		return nil, classify(err)
	}
	return &multipart{c: c, key: in.Key, id: out.UploadId, date: responseDate(out.ResultMetadata)}, nil
}

// Date implements Upload.
func (m *multipart) Date() time.Time { return m.date }

// Part implements Upload.
func (m *multipart) Part(ctx context.Context, n int, body []byte) error {
	ctx, end, err := m.c.begin(ctx, int64(len(body)))
	if err != nil {
		return err
	}
	defer end()
	out, err := m.c.api.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &m.c.o.Bucket, Key: m.key, UploadId: m.id, PartNumber: aws.Int32(int32(n)),
		Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
	})
	if err != nil {
		return classify(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts = append(m.parts, types.CompletedPart{ETag: out.ETag, PartNumber: aws.Int32(int32(n))})
	return nil
}

// Complete implements Upload. Its answer may be lost: the second try then finds no upload, and the object is there.
func (m *multipart) Complete(ctx context.Context) (Meta, error) {
	ctx, end, err := m.c.begin(ctx, int64(len(m.parts))*partSize/8)
	if err != nil {
		return Meta{}, err
	}
	defer end()
	slices.SortFunc(m.parts, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	out, err := m.c.api.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &m.c.o.Bucket, Key: m.key, UploadId: m.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: m.parts},
	})
	if isCode(err, "NoSuchUpload") {
		head, err2 := m.c.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &m.c.o.Bucket, Key: m.key})
		if err2 == nil {
			return Meta{ETag: aws.ToString(head.ETag), Date: responseDate(head.ResultMetadata)}, nil
		}
	}
	if err != nil {
		return Meta{}, classify(err)
	}
	return Meta{ETag: aws.ToString(out.ETag), Date: responseDate(out.ResultMetadata)}, nil
}

// Abort implements Upload.
func (m *multipart) Abort(ctx context.Context) error {
	ctx, end, err := m.c.begin(ctx, 0)
	if err != nil {
		return err
	}
	defer end()
	_, err = m.c.api.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &m.c.o.Bucket, Key: m.key, UploadId: m.id})
	if isCode(err, "NoSuchUpload") {
		return nil
	}
	return err
}

// AbortUploads implements Bucket.
func (c *Client) AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error) {
	n := 0
	in := &s3.ListMultipartUploadsInput{Bucket: &c.o.Bucket, Prefix: c.key(prefix)}
	for {
		out, err := c.listUploads(ctx, in)
		if err != nil {
			return n, err
		}
		for _, u := range out.Uploads {
			if !strings.HasPrefix(aws.ToString(u.Key), *in.Prefix) || !aws.ToTime(u.Initiated).Before(before) {
				continue
			}
			if err := (&multipart{c: c, key: u.Key, id: u.UploadId}).Abort(ctx); err != nil {
				return n, err
			}
			n++
		}
		if !aws.ToBool(out.IsTruncated) {
			return n, nil
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
}

func (c *Client) listUploads(ctx context.Context, in *s3.ListMultipartUploadsInput) (*s3.ListMultipartUploadsOutput, error) {
	ctx, end, err := c.begin(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer end()
	out, err := c.api.ListMultipartUploads(ctx, in)
	if isCode(err, "NoSuchUpload") { // how some services say that there are none
		return &s3.ListMultipartUploadsOutput{}, nil
	}
	if err != nil {
		return nil, classify(err)
	}
	return out, nil
}
