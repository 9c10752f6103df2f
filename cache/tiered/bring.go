package tiered

import (
	"context"
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/pack"
)

// bring stores a batch in the back and drops it from the journal. It returns what has to be tried again soon, and why.
func (w *WriteBack) bring(ctx context.Context, b batch) (left batch, err error) {
	byNamespace := map[string]*batch{}
	of := func(ns string) *batch {
		if byNamespace[ns] == nil {
			byNamespace[ns] = &batch{}
		}
		return byNamespace[ns]
	}
	for _, k := range b.blobs {
		of(k.namespace).blobs = append(of(k.namespace).blobs, k)
	}
	for _, k := range b.actions {
		of(k.namespace).actions = append(of(k.namespace).actions, k)
	}
	for ns, b := range byNamespace {
		from, to, errNS := w.both(ns)
		if errNS == nil {
			errNS = w.bringNamespace(ctx, carrier{w: w, ns: ns, from: from, to: to}, b)
		}
		if errNS != nil {
			err = errors.Join(err, fmt.Errorf("namespace %q: %w", ns, errNS))
			left.blobs, left.actions = append(left.blobs, b.blobs...), append(left.actions, b.actions...)
		}
	}
	return left, err
}

// bringNamespace leaves in b what has to be tried again.
func (w *WriteBack) bringNamespace(ctx context.Context, c carrier, b *batch) error {
	if err := c.blobs(ctx, b.blobs); err != nil {
		return err
	}
	b.blobs = nil
	for len(b.actions) > 0 {
		k := b.actions[0]
		if err := c.settle(ctx, entry{k, true}, c.action(ctx, k)); err != nil {
			return err
		}
		b.actions = b.actions[1:]
	}
	return nil
}

func (w *WriteBack) both(ns string) (*pack.Cache, *Cache, error) {
	from, err := w.journal.Namespace(ns)
	if err != nil {
		return nil, nil, err
	}
	to, err := w.cache(ns)
	return from, to, err
}

// carrier brings what one namespace has in the journal to the back.
type carrier struct {
	w    *WriteBack
	ns   string
	from *pack.Cache
	to   *Cache
}

// together is how many bytes of small blobs are brought to the back in one call.
const together = 8 << 20

// blobs brings blobs. An error means that the back can't be had; what it refuses is set aside.
func (c carrier) blobs(ctx context.Context, keys []key) error {
	var blobs []cache.Blob
	var absent []digest.Digest
	size := 0
	for _, k := range keys {
		d := k.digest
		if d.Size() > small {
			err := c.large(ctx, d)
			if errors.Is(err, cache.ErrNotFound) {
				absent = append(absent, d)
			} else if err := c.settle(ctx, entry{k, false}, err); err != nil {
				return err
			}
			continue
		}
		b, err := cache.ReadBlob(ctx, c.from, d, small)
		if errors.Is(err, cache.ErrNotFound) {
			absent = append(absent, d)
			continue
		}
		if err != nil {
			if err := c.settle(ctx, entry{k, false}, err); err != nil {
				return err
			}
			continue
		}
		blobs = append(blobs, cache.Blob{Digest: d, Data: b})
		if size += len(b); size > together {
			if err := c.many(ctx, blobs); err != nil {
				return err
			}
			blobs, size = nil, 0
		}
	}
	if err := c.many(ctx, blobs); err != nil {
		return err
	}
	return c.account(ctx, absent)
}

// large brings a blob that has a file of its own.
func (c carrier) large(ctx context.Context, d digest.Digest) error {
	rc, err := c.from.Get(ctx, d)
	if err != nil {
		return err
	}
	if err := errors.Join(c.to.Put(ctx, d, rc), rc.Close()); err != nil {
		return err
	}
	return c.from.Drop([]digest.Digest{d})
}

// many brings small blobs, together if the back takes them all, else one by one.
func (c carrier) many(ctx context.Context, blobs []cache.Blob) error {
	if len(blobs) == 0 {
		return nil
	}
	err := cache.PutAll(ctx, c.to, blobs)
	if err == nil {
		ds := make([]digest.Digest, len(blobs))
		for i, b := range blobs {
			ds[i] = b.Digest
			c.w.forgive(entry{key{c.ns, b.Digest}, false})
		}
		return c.from.Drop(ds)
	}
	if !refusal(err) {
		return err
	}
	for _, b := range blobs {
		err := cache.PutAll(ctx, c.to, []cache.Blob{b})
		if err == nil {
			err = c.from.Drop([]digest.Digest{b.Digest})
		}
		if err := c.settle(ctx, entry{key{c.ns, b.Digest}, false}, err); err != nil {
			return err
		}
	}
	return nil
}

// account says what became of blobs that are not in the journal: they were brought already, by an earlier batch that named
// them too, or the journal has lost them.
func (c carrier) account(ctx context.Context, absent []digest.Digest) error {
	if len(absent) == 0 {
		return nil
	}
	missing, err := c.to.FindMissing(ctx, absent)
	if err != nil {
		return err
	}
	if missing, err = c.from.FindMissing(ctx, missing); err != nil { // else it was written anew, and is pending again
		return err
	}
	for _, d := range missing {
		c.w.lose(entry{key{c.ns, d}, false}, digest.ErrMismatch)
	}
	return nil
}

// action brings an ActionResult, once all blobs that it names are there.
func (c carrier) action(ctx context.Context, k key) error {
	w := c.w
	w.changes.Lock()
	writes := w.count(k, 0)
	b, writer, err := c.from.ActionBytes(ctx, k.digest)
	w.changes.Unlock()
	if errors.Is(err, cache.ErrNotFound) && !errors.Is(err, digest.ErrMismatch) {
		if writes == 0 {
			return nil // brought already
		}
		err = fmt.Errorf("%w: %w", err, digest.ErrMismatch) // somebody else found it damaged
	}
	ar := new(repb.ActionResult)
	if err == nil {
		err = proto.Unmarshal(b, ar)
	}
	if err == nil {
		err = c.namesTrouble(ctx, k, ar)
	}
	if err == nil {
		err = c.to.UpdateActionResult(cache.WithPrincipal(ctx, writer), k.digest, ar)
	}
	if err != nil {
		return err
	}
	w.changes.Lock()
	defer w.changes.Unlock()
	if w.count(k, 0) != writes {
		return nil // written again meanwhile, and pending again
	}
	if err := c.from.DropActions([]digest.Digest{k.digest}); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.writes, k)
	return nil
}

// count adds to the writes of an ActionResult and returns how many there were.
func (w *WriteBack) count(k key, more int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if more > 0 {
		w.writes[k] += more
	}
	return w.writes[k]
}
