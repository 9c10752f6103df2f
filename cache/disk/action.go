package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// errDamaged is wrapped by errors about an ActionResult's file that is not what was written.
var errDamaged = errors.New("stored action result is damaged")

// GetActionResult implements cache.ActionCache. The package comment says what becomes of a damaged one.
func (s *Store) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	if err := errors.Join(ctx.Err(), checkDigest(action)); err != nil {
		return nil, fmt.Errorf("get action result: %w", err)
	}
	n := name{actions, action}
	f, err := os.Open(n.path(s))
	if err != nil {
		return nil, notFound(n, err)
	}
	defer f.Close()
	result, err := readEntry(f, action)
	if errors.Is(err, errDamaged) {
		return nil, fmt.Errorf("%w: %w", cache.NotFound(n.area.noun(), action), s.setAside(ctx, n, f, err))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n, err)
	}
	if fi, err := f.Stat(); err == nil {
		s.renew(f.Name(), fi.ModTime())
	}
	return result, nil
}

// UpdateActionResult implements cache.ActionCache.
func (s *Store) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	if err := s.update(ctx, action, result); err != nil {
		return fmt.Errorf("store the result of action %s: %w", action, s.explain(err))
	}
	return nil
}

func (s *Store) update(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	if err := errors.Join(ctx.Err(), checkDigest(action)); err != nil {
		return err
	}
	b, err := encodeEntry(action, result)
	if err != nil {
		return err
	}
	if err := s.checkRoom(int64(len(b))); err != nil {
		return err
	}
	f, err := s.stage(name{actions, action}, bytes.NewReader(b), true)
	if err != nil {
		return err
	}
	defer os.Remove(f.temp) // it is still there only after an error
	return s.publish(ctx, []staged{f}, syncDirs)
}

// entryMagic begins the file of an ActionResult. A checksum and the encoded message follow.
const entryMagic = "pexpress action result 1\n"

const entryHeader = len(entryMagic) + sha256.Size

// encodeEntry returns the content of an ActionResult's file. The checksum covers the Action's digest as well, so that
// a file under a wrong name is not believed.
func encodeEntry(action digest.Digest, result *repb.ActionResult) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(result)
	if err != nil {
		return nil, err
	}
	if len(b) > cache.MaxMessage {
		return nil, fmt.Errorf("it has %d bytes, more than the %d allowed", len(b), cache.MaxMessage)
	}
	sum := entrySum(action, b)
	return append(append([]byte(entryMagic), sum[:]...), b...), nil
}

func entrySum(action digest.Digest, message []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	_, _ = io.WriteString(h, action.String()+"\n")
	_, _ = h.Write(message)
	h.Sum(sum[:0])
	return sum
}

// decodeEntry reads what encodeEntry wrote; all else is errDamaged.
func decodeEntry(action digest.Digest, b []byte) (*repb.ActionResult, error) {
	if len(b) < entryHeader || string(b[:len(entryMagic)]) != entryMagic {
		return nil, fmt.Errorf("%w: action %s: no header", errDamaged, action)
	}
	message := b[entryHeader:]
	if sum := entrySum(action, message); !bytes.Equal(sum[:], b[len(entryMagic):entryHeader]) {
		return nil, fmt.Errorf("%w: action %s: wrong checksum", errDamaged, action)
	}
	result := new(repb.ActionResult)
	if err := proto.Unmarshal(message, result); err != nil {
		return nil, fmt.Errorf("%w: action %s: %w", errDamaged, action, err)
	}
	return result, nil
}

// readEntry reads an ActionResult's open file, at most as much of it as can be right.
func readEntry(f io.Reader, action digest.Digest) (*repb.ActionResult, error) {
	const limit = int64(entryHeader + cache.MaxMessage)
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: action %s: longer than any that was written", errDamaged, action)
	}
	return decodeEntry(action, b)
}
