package sandbox

import (
	"bytes"
	"io"
	"os"
)

// maxHandshake bounds the line by which a builder introduces itself.
const maxHandshake = 4 << 10

// firstLine reads a builder's standard output: its first line, and of all that follows nothing but the end. go-plugin
// would stop reading at a line of more than 64 KiB and so stall a builder that writes one.
type firstLine struct {
	f    *os.File
	left int
}

// Read implements io.Reader.
func (r *firstLine) Read(p []byte) (int, error) {
	if r.left == 0 {
		_, err := io.Copy(io.Discard, r.f)
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	n, err := r.f.Read(p[:min(len(p), r.left)])
	r.left -= n
	if i := bytes.IndexByte(p[:n], '\n'); i >= 0 {
		n, r.left = i+1, 0
	} else if r.left == 0 {
		p[n-1] = '\n' // too long for a handshake: let go-plugin see that now, not when the builder ends
	}
	return n, err
}

// Close implements io.Closer.
func (r *firstLine) Close() error { return r.f.Close() }

// aside reads nothing but the end of a builder's standard error, and passes its bytes on. go-plugin takes what it reads
// there for log lines: slowly, and it panics at {"@message": 1} (parseJSON in its log_entry.go).
type aside struct {
	f  *os.File
	to io.Writer
}

// Read implements io.Reader.
func (r *aside) Read([]byte) (int, error) {
	_, err := io.Copy(r.to, r.f)
	if err == nil {
		err = io.EOF
	}
	return 0, err
}

// Close implements io.Closer.
func (r *aside) Close() error { return r.f.Close() }
