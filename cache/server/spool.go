package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// spoolMemory is how much of a body of unknown size is held in memory before it goes to a file.
	spoolMemory = 256 << 10
	// maxSpool bounds such a body: whoever has more says its size.
	maxSpool = 8 << 30
)

// spoolBody reads a body to its end to learn its size, and returns a reader of it. The file has no name any more: it
// goes away with the reader, or with the process.
func (s *httpServer) spoolBody(c *call) (io.ReadCloser, int64, error) {
	var head bytes.Buffer
	n, err := io.CopyN(&head, c.body, spoolMemory)
	if errors.Is(err, io.EOF) {
		return io.NopCloser(&head), n, nil
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := os.CreateTemp(s.spool, "upload-*")
	if err != nil {
		return nil, 0, fmt.Errorf("spool an upload of unknown size: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("spool an upload of unknown size: %w", err), f.Close())
	}
	n, err = io.Copy(f, io.LimitReader(io.MultiReader(&head, c.body), maxSpool+1))
	if err == nil && n > maxSpool {
		err = status.Errorf(codes.InvalidArgument, "the body has more than %d bytes: send its size as Content-Length", int64(maxSpool))
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, n, nil
}
