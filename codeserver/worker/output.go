package worker

import (
	"bufio"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is how much a version can write while there is no codeserver; the kernel may give less.
	pipeSize = 256 << 10
	// maxLine is where a log line is cut.
	maxLine = 64 << 10
)

// OwnLine begins the lines of a log that the codeserver writes, not the version.
const OwnLine = "codeserver: "

// outputPipe returns the pipe that a version writes to.
func outputPipe() (r, w *os.File, err error) {
	r, w, err = os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	raw, err := r.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
	if err != nil {
		return nil, nil, errors.Join(err, r.Close(), w.Close())
	}
	return r, w, nil
}

// floodQuiet is how long a version that has written too much is silent before its last lines are told.
const floodQuiet = time.Second

// readLines hands on lines, long ones in pieces. What has been read and not handed on when this process is killed, less
// than a line or a few, is lost; what waits in the pipe is there for the next codeserver.
func readLines(r *os.File, log func([]byte)) {
	f := newFlood(log, time.Now, time.Sleep)
	defer f.end()
	b := bufio.NewReaderSize(output{file: r, flood: f}, maxLine)
	for {
		line, _, err := b.ReadLine()
		if err != nil {
			return
		}
		f.line(line)
	}
}

// output is what a version writes. That it is silent after a flood is seen here, below what makes lines of it: one that has only begun
// would be two there.
type output struct {
	file  *os.File
	flood *flood
}

func (o output) Read(p []byte) (int, error) {
	if o.flood.dropped > 0 {
		_ = o.file.SetReadDeadline(time.Now().Add(floodQuiet)) // where there can be none, the last lines are told with the next one
		n, err := o.file.Read(p)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		o.flood.end()
	}
	_ = o.file.SetReadDeadline(time.Time{})
	return o.file.Read(p)
}
