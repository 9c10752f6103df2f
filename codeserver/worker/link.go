package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Between a codeserver and a shim is a connection, whose end is the codeserver's as the shim sees it, and the shim's as
// the codeserver does. Each packet is one JSON object.

// protocol is the version of what is said on it. Of any version a shim takes the order to end.
const protocol = 1

// order is what a codeserver says.
type order struct {
	// End asks the shim to end the version.
	End bool `json:"end,omitempty"`
	// Within is how long the shim waits for another codeserver when this one is gone.
	Within *time.Duration `json:"within,omitempty"`
	// Socket comes with the first order of all, and with the read end of the version's output.
	Socket string `json:"socket,omitempty"`
	// Record is what the next codeserver is told.
	Record json.RawMessage `json:"record,omitempty"`
}

// notice is what a shim says.
type notice struct {
	// Protocol and the four after it come first on a connection to the shim's socket, with the read end of the output.
	Protocol int             `json:"protocol,omitempty"`
	PID      int             `json:"pid,omitempty"`
	Shim     int             `json:"shim,omitempty"`
	Grace    time.Duration   `json:"grace,omitempty"`
	Record   json.RawMessage `json:"record,omitempty"`
	// Ended is the exit status, the last that a shim says.
	Ended *int `json:"ended,omitempty"`
}

// maxPacket is the size of the largest packet.
const maxPacket = 64 << 10

// connection returns the connection that a descriptor is. It closes f.
func connection(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a unix socket"), c.Close())
	}
	return conn, nil
}

// pair returns the two ends of a connection.
func pair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "lifeline")
	ours, err = connection(os.NewFile(uintptr(fds[0]), "lifeline"))
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// send sends an order or a notice, and with it a file.
func send(c *net.UnixConn, what any, file *os.File) error {
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	if len(b) > maxPacket {
		return fmt.Errorf("a packet of %d bytes for a shim is too large", len(b))
	}
	if file == nil {
		_, err = c.Write(b)
		return err
	}
	raw, err := file.SyscallConn() // Fd would take it from the poller
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { _, _, err = c.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil) })
	return errors.Join(err, cerr)
}

// receive receives an order or a notice, and the file that came with it, nil if none did.
func receive(c *net.UnixConn, what any) (*os.File, error) {
	b, oob := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob)
	if errors.Is(err, unix.ECONNRESET) {
		// The other end has gone and left something unread. The kernel says so once, before what that end has sent.
		n, oobn, flags, _, err = c.ReadMsgUnix(b, oob)
	}
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errGone
	}
	file, err := received(oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("the packet is too large")
	}
	if err == nil {
		err = json.Unmarshal(b[:n], what)
	}
	if err != nil && file != nil {
		err = errors.Join(err, file.Close())
	}
	return file, err
}

// errGone says that whoever is at the other end has ended.
var errGone = errors.New("the other end is gone")

// received returns the file that came with a packet, nil if none did.
func received(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var file *os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), "output")
			if file != nil {
				return nil, errors.Join(errors.New("several files came with a packet"), f.Close(), file.Close())
			}
			file = f
		}
	}
	return file, nil
}

// peer returns who is at the other end: its user, and the process that made that end.
func peer(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, cerr)
}

// through calls do with another path to a file, one short enough for a socket's address, which may have 107 bytes.
func through(dir, name string, do func(path string) error) error {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}
