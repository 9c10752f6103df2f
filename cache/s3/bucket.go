package s3

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors of a Bucket that the log acts on. Every other one is a failure and surfaces as such.
var (
	// ErrNoObject is a real 404: the bucket answered, and the key is not there.
	ErrNoObject = errors.New("no such object")
	// ErrShort is a Get of a range that begins at or after the object's end.
	ErrShort = errors.New("the object ends before that")
	// ErrConflict is a swap whose condition did not hold: 412, or 409 while another swap was under way.
	ErrConflict = errors.New("another writer was first")
)

// NotModified is the error of a Get whose IfNoneMatch is current.
type NotModified struct {
	Date time.Time // S3's clock
}

// Error implements error.
func (*NotModified) Error() string { return "not modified" }

// Bucket is what the log needs of S3, and all of it: strongly consistent, as S3 has been since 2020. The real one is
// Client; tests put faults, counters and schedules at this boundary.
type Bucket interface {
	// Put makes a new object. Names are never used twice, so an object that is there is what an earlier try of the same
	// Put left.
	Put(ctx context.Context, key string, body []byte) (Meta, error)
	// Get reads an object or a range of it. ErrNoObject says that it is not there, ErrShort that it has nothing at the
	// offset, *NotModified that it is the one that IfNoneMatch names. The body is as S3 sends it: whoever reads it verifies it.
	Get(ctx context.Context, key string, o GetOptions) (*Object, error)
	// List returns the keys that begin with prefix and come after the given one, in order, a page at a time.
	List(ctx context.Context, prefix, after string) (Page, error)
	// Swap replaces the object if its ETag is etag, or makes it if etag is "" and there is none. ErrConflict says that
	// it was not so; any other error leaves open whether it was done.
	Swap(ctx context.Context, key string, body []byte, etag string) (Meta, error)
	// Delete removes objects; those that are gone already are success.
	Delete(ctx context.Context, keys []string) error
	// Upload begins an object that is sent in parts and visible only when completed.
	Upload(ctx context.Context, key string) (Upload, error)
	// AbortUploads ends uploads under prefix that were begun before the given time and never completed.
	AbortUploads(ctx context.Context, prefix string, before time.Time) (int, error)
}

// Meta is what S3 says about a write or an object.
type Meta struct {
	ETag     string
	Modified time.Time // LastModified, zero in the answer to a write
	Date     time.Time // S3's clock when it answered
}

// GetOptions choose what is read. The zero value is the whole object.
type GetOptions struct {
	Offset      int64
	Length      int64 // 0 is all that follows
	IfNoneMatch string
}

// Object is an object being read.
type Object struct {
	Meta
	Body io.ReadCloser
}

// Page is a part of a listing.
type Page struct {
	Objects []Info
	More    bool
	Date    time.Time // S3's clock
}

// Info is one listed object.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time
}

// Upload is an object on its way.
type Upload interface {
	// Date is S3's clock when the upload began.
	Date() time.Time
	// Part sends part n, counted from 1. Parts but the last are at least 5 MiB and all of one size; they may be sent at once.
	Part(ctx context.Context, n int, body []byte) error
	// Complete makes the object visible.
	Complete(ctx context.Context) (Meta, error)
	// Abort throws the parts away.
	Abort(ctx context.Context) error
}
