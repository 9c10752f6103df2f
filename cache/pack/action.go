package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// maxAction bounds the encoded ActionResult that is stored.
const maxAction = 16 << 20

// GetActionResult implements cache.ActionCache.
func (c *Cache) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	b, _, err := c.ActionBytes(ctx, action)
	if err != nil {
		return nil, err
	}
	ar := new(repb.ActionResult)
	if err := proto.Unmarshal(b, ar); err != nil {
		return nil, fmt.Errorf("result of action %s: %w", action, err)
	}
	return ar, nil
}

// ActionBytes returns the ActionResult as it was encoded, and who wrote it.
func (c *Cache) ActionBytes(ctx context.Context, action digest.Digest) (b []byte, writer string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	r := refOf(action, c.ns, classAction)
	at, ok := c.s.locate(&r)
	if !ok {
		c.s.stats.misses.Add(1)
		return nil, "", cache.NotFound("result of action", action)
	}
	if c.s.stale(&at.entry, c.s.seconds()) {
		touch := &chunk{}
		touch.add(record{kind: kindTouch | ofAction, ns: c.ns, digest: action, time: c.s.seconds()})
		if err := c.s.commit(touch); err != nil {
			return nil, "", fmt.Errorf("result of action %s: record its use: %w", action, err)
		}
		if at, ok = c.s.locate(&r); !ok {
			return nil, "", cache.NotFound("result of action", action)
		}
	}
	payload, err := c.s.small(at, action, nil)
	if errors.Is(err, digest.ErrMismatch) {
		// What can't be read is not there: the build that asked makes it again.
		return nil, "", fmt.Errorf("%w: %w", cache.NotFound("result of action", action), err)
	}
	if err != nil {
		return nil, "", err
	}
	c.s.stats.hits.Add(1)
	writer, b, err = cutWriter(payload)
	return b, writer, err
}

// UpdateActionResult implements cache.ActionCache. It records who wrote it; see cache.WithPrincipal.
func (c *Cache) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(result)
	if err != nil {
		return err
	}
	return c.PutActionBytes(ctx, action, b)
}

// PutActionBytes stores an encoded ActionResult.
func (c *Cache) PutActionBytes(ctx context.Context, action digest.Digest, b []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if action.IsZero() {
		return fmt.Errorf("store action result: %w: no digest given", digest.ErrInvalid)
	}
	if len(b) > maxAction {
		return fmt.Errorf("result of action %s: %w: it has %d bytes, more than the %d allowed: name large outputs by digest",
			action, digest.ErrInvalid, len(b), maxAction)
	}
	writer := cache.PrincipalOf(ctx)
	writer = writer[:min(len(writer), 255)]
	ch := &chunk{}
	ch.add(record{kind: kindBlob | ofAction, ns: c.ns, digest: action, time: c.s.seconds()}, []byte{byte(len(writer))}, []byte(writer), b)
	if err := c.s.commit(ch); err != nil {
		return fmt.Errorf("store the result of action %s: %w", action, err)
	}
	return nil
}

// cutWriter splits the payload of an ActionResult's record: a length byte, the writer's name, the message.
func cutWriter(payload []byte) (writer string, b []byte, err error) {
	if len(payload) == 0 || len(payload) < 1+int(payload[0]) {
		return "", nil, fmt.Errorf("%w: an ActionResult without its writer", errRecord)
	}
	n := 1 + int(payload[0])
	return string(payload[1:n]), payload[n:], nil
}

// DropActions removes ActionResults.
func (c *Cache) DropActions(actions []digest.Digest) error {
	return c.dropAll(actions, kindGone|ofAction)
}

// Drop removes blobs.
func (c *Cache) Drop(ds []digest.Digest) error { return c.dropAll(ds, kindGone) }

func (c *Cache) dropAll(ds []digest.Digest, k kind) error {
	ch := &chunk{}
	for _, d := range ds {
		ch.add(record{kind: k, ns: c.ns, digest: d, time: c.s.seconds()})
	}
	return c.s.commit(ch)
}

// full marks errors that say that the disk is full.
func full(err error) error {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w: free some, or lower the cache's limit", cache.ErrFull, err)
		}
	}
	return err
}

// removeFile removes a large blob's file that no record names.
func removeFile(s *Store, id uint64) error {
	if err := os.Remove(s.filePath(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
