package s3

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pexpress/pexpress/cache/digest"
)

// scanned is a record as a pack holds it.
type scanned struct {
	committed
	payload []byte // checked against its checksums and digest; nil for a blob too large for a pack with others
}

// walk calls each for the records of a pack that is in memory, and says where it cannot go on. A record whose header is
// right and whose payload is not comes with an error.
func walk(b []byte, each func(r scanned, err error)) error {
	for at := 0; at < len(b); {
		size, err := recordAt(b, at, each)
		if err != nil {
			return err
		}
		at += size
	}
	return nil
}

// recordAt calls each for the record at the given place, and returns its length.
func recordAt(b []byte, at int, each func(r scanned, err error)) (int, error) {
	h, n, err := parseHeader(b[at:])
	if err != nil {
		return 0, fmt.Errorf("at %d: %w", at, err)
	}
	size := h.recordLen()
	if size < 0 || size > int64(len(b)-at) {
		return 0, fmt.Errorf("at %d: %w: %s %s ends early", at, errFormat, h.kind, h.digest)
	}
	r := scanned{committed: committed{header: h, offset: uint32(at)}}
	r.payload, err = parsePayload(b[at+n:at+int(size)], h.payload)
	if err == nil {
		err = r.check()
	}
	each(r, err)
	return int(size), nil
}

// check compares the payload with what the header says, and takes a pointer apart.
func (r *scanned) check() error {
	if r.header.kind == kindAction {
		p, err := parsePointer(r.payload)
		r.pointer = &p
		return err
	}
	if got := r.header.digest.Function().FromBytes(r.payload); got != r.header.digest {
		return fmt.Errorf("%w: want %s, got %s", digest.ErrMismatch, r.header.digest, got.Hash())
	}
	return nil
}

// scan reads a pack. Of a large blob it reads the header only. What seems damaged is read again, in case it was on the way.
// Behind a damaged header only those records are found that the index knows the places of. To look for something like a
// record there would find what clients have put into blobs.
func (s *Store) scan(ctx context.Context, i id, known []uint32, each func(r scanned, err error)) (meta Meta, size int64, err error) {
	type result struct {
		r   scanned
		err error
	}
	var all []result
	for range tries {
		var b []byte
		if meta, b, err = s.packBytes(ctx, i); err != nil {
			if errors.Is(err, errRequest) {
				return meta, 0, err
			}
			continue
		}
		h, _, herr := parseHeader(b)
		if herr == nil && h.kind == kindBlob && h.payload > maxSmall {
			each(scanned{committed: committed{header: h}}, nil)
			return meta, h.recordLen(), nil
		}
		all, size = all[:0], int64(len(b))
		damaged, seen := false, map[uint32]bool{}
		take := func(r scanned, err error) {
			damaged, seen[r.offset] = damaged || err != nil, true
			all = append(all, result{r, err})
		}
		if err = walk(b, take); err != nil {
			for _, at := range known {
				if !seen[at] && int(at) < len(b) {
					_, _ = recordAt(b, int(at), take) // that the pack is damaged is known
				}
			}
		}
		if err == nil && !damaged {
			break
		}
	}
	for _, r := range all {
		each(r.r, r.err)
	}
	return meta, size, err
}

// packBytes returns a pack's bytes, of a large blob's pack the beginning.
func (s *Store) packBytes(ctx context.Context, i id) (Meta, []byte, error) {
	meta, b, err := s.readPart(ctx, i, maxHeader)
	if err != nil {
		return meta, nil, err
	}
	h, _, err := parseHeader(b)
	if err == nil && h.kind == kindBlob && h.payload > maxSmall {
		return meta, b, nil
	}
	return s.readPart(ctx, i, 0)
}

func (s *Store) readPart(ctx context.Context, i id, n int64) (Meta, []byte, error) {
	o, err := s.bucket.Get(ctx, packDir+i.String(), GetOptions{Length: n})
	if err != nil {
		return Meta{}, nil, fmt.Errorf("%w: %w", errRequest, err)
	}
	defer o.Body.Close()
	b, err := io.ReadAll(o.Body)
	return o.Meta, b, err
}

// packEntries makes the index of a pack from the pack. Records whose payload is damaged are in it, too: a read will tell.
func (s *Store) packEntries(ctx context.Context, i id) (*entries, error) {
	var items []committed
	meta, size, err := s.scan(ctx, i, nil, func(r scanned, err error) {
		if err == nil || r.header.kind == kindBlob {
			items = append(items, r.committed)
		}
	})
	if err != nil && !errors.Is(err, errFormat) { // of a pack that is damaged, too, what can be found
		return nil, fmt.Errorf("pack %s: %w", i, err)
	}
	return tailOf(packRef{i, size, meta.Modified.Unix()}, items, secondsOf(meta.Modified)), nil
}
