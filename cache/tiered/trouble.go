package tiered

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// Trouble is what a WriteBack could not bring to the back.
type Trouble struct {
	Refused int // the back would not have it; it is in the journal, and tried again
	Lost    int // acknowledged, and damaged in the journal before the back had it
}

// Trouble returns the figures of this moment.
func (w *WriteBack) Trouble() Trouble {
	t := &w.trouble
	t.mu.Lock()
	defer t.mu.Unlock()
	return Trouble{Refused: len(t.refused), Lost: t.losses}
}

// trouble is what is known of what could not be brought.
type trouble struct {
	mu      sync.Mutex
	refused map[entry]error
	lost    map[entry]error // until it is written anew
	losses  int
	timer   *time.Timer // until what was refused is tried again; nil if nothing is
	stopped bool
}

// entry tells an ActionResult apart from the blob of the same digest, which is the Action's.
type entry struct {
	key
	action bool
}

// tryAgain is how long what was refused waits: a quota may be raised, or room made.
const tryAgain = time.Minute

// refusal reports whether an error is about what is brought, rather than about the way to the back.
func refusal(err error) bool {
	for _, e := range []error{cache.ErrFull, digest.ErrInvalid, digest.ErrMismatch, errHeld} {
		if errors.Is(err, e) {
			return true
		}
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.PermissionDenied, codes.FailedPrecondition, codes.OutOfRange:
		return true
	}
	return false
}

// errHeld is wrapped by the error for an ActionResult that must not be seen before its blobs.
var errHeld = errors.New("it names what the bucket does not have")

// settle says what an error of bringing k means. It returns those for which the rest has to wait.
func (c carrier) settle(ctx context.Context, k entry, err error) error {
	if err == nil {
		c.w.forgive(k)
		return nil
	}
	if !refusal(err) || ctx.Err() != nil {
		return err
	}
	if k.action && errors.Is(err, cache.ErrNotFound) {
		c.w.lose(k, err)
		return nil
	}
	if !k.action && errors.Is(err, digest.ErrMismatch) { // the journal sets aside what it can't read
		missing, errFind := c.from.FindMissing(ctx, []digest.Digest{k.digest})
		if errFind != nil {
			return errFind
		}
		if len(missing) > 0 {
			c.w.lose(k, err)
			return nil
		}
	}
	c.w.refuse(k, err)
	return nil
}

// forgive forgets the trouble with what has arrived.
func (w *WriteBack) forgive(k entry) {
	w.trouble.mu.Lock()
	defer w.trouble.mu.Unlock()
	delete(w.trouble.refused, k)
	delete(w.trouble.lost, k)
}

// refuse sets aside what the back would not have, and tells so the first time.
func (w *WriteBack) refuse(k entry, err error) {
	t := &w.trouble
	t.mu.Lock()
	_, known := t.refused[k]
	t.refused[k] = err
	if t.timer == nil && !t.stopped {
		t.timer = time.AfterFunc(tryAgain, w.retry)
	}
	t.mu.Unlock()
	if !known {
		w.warn(fmt.Errorf("write-back: the bucket refuses %s of namespace %q, which stays in the journal: %w", k.digest, k.namespace, err))
	}
}

// retry makes what was refused pending again.
func (w *WriteBack) retry() {
	t := &w.trouble
	t.mu.Lock()
	t.timer = nil
	var b batch
	for k := range t.refused {
		if k.action {
			b.actions = append(b.actions, k.key)
		} else {
			b.blobs = append(b.blobs, k.key)
		}
	}
	t.mu.Unlock()
	w.add(b)
}

func (t *trouble) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

// lose tells that something acknowledged is no more.
func (w *WriteBack) lose(k entry, err error) {
	t := &w.trouble
	err = fmt.Errorf("write-back: %s of namespace %q was acknowledged, and its copy in the journal was damaged before the bucket had it: store or build it again: %w",
		k.digest, k.namespace, err)
	t.mu.Lock()
	_, known := t.lost[k]
	delete(t.refused, k)
	t.lost[k] = err
	if !known {
		t.losses++
	}
	t.mu.Unlock()
	if !known {
		w.warn(err)
	}
}

// loseUnnamed tells the loss of something whose digest is damaged, too.
func (w *WriteBack) loseUnnamed(what string) {
	w.trouble.mu.Lock()
	w.trouble.losses++
	w.trouble.mu.Unlock()
	w.warn(fmt.Errorf("write-back: acknowledged, and damaged in the journal before the bucket had it: %s", what))
}

// lossOf returns the error for what was lost, nil if it was not.
func (w *WriteBack) lossOf(k key) error {
	w.trouble.mu.Lock()
	defer w.trouble.mu.Unlock()
	return w.trouble.lost[entry{k, false}]
}

// troubled reports whether the back is known not to have a blob.
func (t *trouble) troubled(k key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refused[entry{k, false}] != nil || t.lost[entry{k, false}] != nil
}

func (t *trouble) none() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.refused)+len(t.lost) == 0
}
