package worker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tether is what ties a shim to its codeserver, and, when that is gone, for a while to the next one.
type tether struct {
	listener *net.UnixListener // nil if the version ends with the codeserver
	socket   string
	output   *os.File // what nobody has read of the version's output waits in it
	hello    notice

	mu     sync.Mutex
	conn   *net.UnixConn // nil while there is no codeserver
	within time.Duration
	ended  *int
	told   chan struct{} // closed when a codeserver was told that the version has ended
}

// tie takes the first order of the codeserver that has started this shim.
func tie() (*tether, error) {
	conn, err := connection(os.NewFile(lifelineFD, "lifeline"))
	if err != nil {
		return nil, fmt.Errorf("the lifeline: %w", err)
	}
	var first order
	t := &tether{conn: conn, told: make(chan struct{})}
	if t.output, err = receive(conn, &first); err != nil {
		return nil, fmt.Errorf("read the first order: %w", err)
	}
	t.hello.Record = first.Record
	if first.Within != nil {
		t.within = *first.Within
	}
	if first.Socket == "" || t.output == nil {
		return t, nil
	}
	t.socket = first.Socket
	err = through(filepath.Dir(t.socket), filepath.Base(t.socket), func(path string) error {
		t.listener, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
		return err
	})
	if err != nil {
		// The version serves all the same, as long as this codeserver is there.
		fmt.Fprintln(os.Stderr, "codeserver worker: the version ends with its codeserver:", err)
		return t, nil
	}
	t.listener.SetUnlinkOnClose(false) // by then the descriptor in its path is another's
	return t, nil
}

// hold returns when the version is to end: when the codeserver says so, or has gone and no other has come in time.
func (t *tether) hold() {
	for {
		t.mu.Lock()
		conn := t.conn
		t.mu.Unlock()
		if t.obey(conn) {
			return
		}
		t.mu.Lock()
		t.conn = nil
		within := t.within
		t.mu.Unlock()
		conn.Close()
		if t.listener == nil || within <= 0 || t.await(time.Now().Add(within)) != nil {
			return
		}
	}
}

// gone reports whether there is no codeserver, once hold has returned.
func (t *tether) gone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn == nil
}

// obey takes orders until the codeserver is gone, or says that the version is to end.
func (t *tether) obey(conn *net.UnixConn) (end bool) {
	for {
		var o order
		file, err := receive(conn, &o)
		if file != nil {
			file.Close()
		}
		if err != nil || o.End {
			return o.End
		}
		t.mu.Lock()
		if o.Within != nil {
			t.within = *o.Within
		}
		if o.Record != nil {
			t.hello.Record = o.Record
		}
		t.mu.Unlock()
	}
}

// await waits for another codeserver of the same user.
func (t *tether) await(until time.Time) error {
	if err := t.listener.SetDeadline(until); err != nil {
		return err
	}
	for {
		conn, err := t.listener.AcceptUnix()
		if err != nil {
			return err
		}
		cred, err := peer(conn)
		if err != nil || int(cred.Uid) != os.Geteuid() || t.welcome(conn) != nil {
			conn.Close()
			continue
		}
		return nil
	}
}

// welcome tells a codeserver all, and hands it the output.
func (t *tether) welcome(conn *net.UnixConn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := send(conn, t.hello, t.output); err != nil {
		return err
	}
	t.conn = conn
	t.tell()
	return nil
}

// say has the codeserver, if there is one, know how the version has ended.
func (t *tether) say(code int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = &code
	t.tell()
}

// tell tells the codeserver that the version has ended, if it has. t.mu is held.
func (t *tether) tell() {
	if t.ended == nil || t.conn == nil {
		return
	}
	if err := send(t.conn, notice{Ended: t.ended}, nil); err != nil {
		return
	}
	select {
	case <-t.told:
	default:
		close(t.told)
	}
}

// report tells the codeserver that the version has ended, the next one if this one is gone, for the sake of the last words
// that are still in the output. It reports whether that has been told before given up: closed when it has not come in time.
func (t *tether) report(code int, givenUp <-chan struct{}) bool {
	t.say(code)
	select {
	case <-t.told:
	case <-givenUp:
	}
	select {
	case <-t.told:
		return true
	default:
		return false
	}
}

// cut has no other codeserver find the version.
func (t *tether) cut() error {
	if t.listener == nil {
		return nil
	}
	err := os.Remove(t.socket)
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return errors.Join(err, t.listener.Close())
}
