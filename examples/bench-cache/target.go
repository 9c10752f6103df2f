package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// target is a server under load, and the calls that are made to it. Each checks its answer as far as that is cheap:
// status and sizes always, contents where it is told to.
type target struct {
	name    string
	address string
	null    bool // answers with canned bytes: only their sizes mean something
	pid     int  // 0 if the server is not ours to look at
	conns   []*grpc.ClientConn
	clients []*client
	stored  map[string]bool
}

// connect makes n clients that share some connections.
func (t *target) connect(n, connections int) error {
	t.stored = map[string]bool{}
	for range connections {
		conn, err := dial(t.address)
		if err != nil {
			return err
		}
		t.conns = append(t.conns, conn)
	}
	for i := range n {
		t.clients = append(t.clients, &client{conn: t.conns[i%connections]})
	}
	return nil
}

func (t *target) close() {
	for _, conn := range t.conns {
		_ = conn.Close()
	}
}

// once runs f unless it has been run under that name before.
func (t *target) once(name string, f func() error) error {
	if t.stored[name] {
		return nil
	}
	t.stored[name] = true
	return f()
}

func (t *target) update(ctx context.Context, c *client, req *message, n int) error {
	if err := c.call(ctx, batchUpdate, req, true); err != nil {
		return check("BatchUpdateBlobs", err)
	}
	if t.null {
		return nil
	}
	return updated(c.answer.bytes, n)
}

func (t *target) write(ctx context.Context, c *client, reqs []*message, size int64) error {
	var err error
	if len(reqs) == 1 {
		err = c.call(ctx, streamWrite, reqs[0], true)
	} else {
		err = c.upload(ctx, reqs)
	}
	if err != nil {
		return check("ByteStream Write", err)
	}
	if t.null {
		return nil
	}
	return c.answer.committed(size)
}

func (t *target) readBatch(ctx context.Context, c *client, req *message, want []blob, verify bool) error {
	verify = verify && !t.null
	if err := c.call(ctx, batchRead, req, verify); err != nil {
		return check("BatchReadBlobs", err)
	}
	if verify {
		return readAll(c.answer.bytes, want)
	}
	// A blob that is missing leaves a gap: what stands around each, a digest and a status, is smaller than a blob.
	var size int
	for _, b := range want {
		size += len(b.data)
	}
	if c.answer.size < size {
		return fmt.Errorf("%w: BatchReadBlobs of %d bytes answered with %d", errWrong, size, c.answer.size)
	}
	return nil
}

func (t *target) read(ctx context.Context, c *client, req *message, want string, size int64, verify bool) error {
	var got int64
	var h hash.Hash
	if verify && !t.null {
		h = sha256.New()
	}
	err := c.download(ctx, req, h != nil, func(a *answer) error {
		n, err := a.payload()
		if err == nil && h != nil {
			h.Write(a.bytes[int64(len(a.bytes))-n:])
		}
		got += n
		return err
	})
	switch {
	case err != nil:
		return check("ByteStream Read", err)
	case got != size:
		return fmt.Errorf("%w: ByteStream Read of %d bytes answered with %d", errWrong, size, got)
	case h != nil && hex.EncodeToString(h.Sum(nil)) != want:
		return fmt.Errorf("%w: ByteStream Read of %s answered with %x", errWrong, want, h.Sum(nil))
	}
	return nil
}

// find expects missing of the digests to be missing.
func (t *target) find(ctx context.Context, c *client, req *message, missing int) error {
	if err := c.call(ctx, findMissing, req, missing > 0); err != nil {
		return check("FindMissingBlobs", err)
	}
	if t.null {
		return nil
	}
	// Each digest takes its hash, its size and four or five bytes around them.
	if n := c.answer.size; missing == 0 && n > 0 || n < missing*70 || n > missing*80 {
		return fmt.Errorf("%w: FindMissingBlobs answered with %d bytes where %d blobs are missing", errWrong, n, missing)
	}
	return nil
}

func (t *target) put(ctx context.Context, c *client, req *message) error {
	return check("UpdateActionResult", c.call(ctx, updateAction, req, false))
}

// get expects an ActionResult, or that there is none.
func (t *target) get(ctx context.Context, c *client, req *message, want codes.Code) error {
	err := c.call(ctx, getAction, req, false)
	switch {
	case status.Code(err) != want && !t.null:
		return check("GetActionResult", errors.Join(err, fmt.Errorf("%w: expected %s", errWrong, want)))
	case err == nil && c.answer.size == 0:
		return fmt.Errorf("%w: GetActionResult answered with nothing", errWrong)
	}
	return nil
}
