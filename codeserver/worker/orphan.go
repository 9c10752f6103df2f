package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/limits"
)

// Orphan is a version's process whose codeserver is gone. It must be adopted, or ended.
type Orphan struct {
	// Socket is the one of the Spec that it was started with, Record that one's, nil if it is not known.
	Socket string
	Record json.RawMessage

	shim   *shim
	hello  notice
	output *os.File
}

// Orphans connects to the processes whose sockets are in a directory that another codeserver has left, and removes the
// sockets of those that are gone. The caller is the only codeserver that uses the directory.
func Orphans(dir string) ([]*Orphan, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var found []*Orphan
	for _, e := range entries {
		if e.Type()&os.ModeSocket == 0 {
			continue
		}
		wg.Go(func() {
			o, oerr := connect(filepath.Join(dir, e.Name()))
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, oerr)
			if o != nil {
				found = append(found, o)
			}
		})
	}
	wg.Wait()
	return found, err
}

// helloTimeout is how long a shim has to say what it watches over, a thing of milliseconds.
var helloTimeout = 10 * time.Second

// connect returns the process behind a socket, nil if there is none.
func connect(socket string) (*Orphan, error) {
	o := &Orphan{Socket: socket}
	var conn *net.UnixConn
	err := through(filepath.Dir(socket), filepath.Base(socket), func(path string) (err error) {
		conn, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		return err
	})
	if errors.Is(err, unix.ECONNREFUSED) {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		return nil, nil
	}
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	cred, err := peer(conn)
	if err == nil && int(cred.Uid) != os.Geteuid() {
		err = fmt.Errorf("it is user %d's", cred.Uid)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", socket, err), conn.Close())
	}
	o.shim = &shim{conn: conn, pidfd: -1}
	return o, errors.Join(o.shim.open(int(cred.Pid)), o.listen())
}

// listen has the shim say what it watches over. One that does not, or not in a way that is understood, has no Record.
func (o *Orphan) listen() error {
	err := o.shim.conn.SetReadDeadline(time.Now().Add(helloTimeout))
	if err == nil {
		o.output, err = receive(o.shim.conn, &o.hello)
	}
	err = errors.Join(err, o.shim.conn.SetReadDeadline(time.Time{}))
	switch {
	case err == nil && o.hello.Protocol != protocol:
		err = fmt.Errorf("its shim speaks version %d, this codeserver %d", o.hello.Protocol, protocol)
	case err == nil && (o.hello.PID < 2 || o.output == nil):
		err = errors.New("its shim does not say what it watches over")
	}
	if err != nil {
		return fmt.Errorf("a process of the codeserver before is ended (%s): %w", filepath.Base(o.Socket), err)
	}
	o.Record = o.hello.Record
	return nil
}

// PID returns the process's id.
func (o *Orphan) PID() int { return o.hello.PID }

// Adopt takes the process over. Of spec it needs what concerns the log, Group, and Within.
func (o *Orphan) Adopt(spec Spec) *Worker {
	_ = o.shim.tell(order{Within: &spec.Within}) // a shim that is gone is noticed below
	w := o.worker()
	w.group = spec.Group
	go w.wait(o.output, spec.Log)
	return w
}

func (o *Orphan) worker() *Worker {
	w := &Worker{
		shim: o.shim, pid: o.hello.PID, grace: o.hello.Grace, socket: o.Socket,
		started: make(chan struct{}), done: make(chan struct{}),
	}
	close(w.started)
	return w
}

// Processes lists the version's, as far as they are known: all but those of a version that was forked, if its shim does not
// say so.
func (o *Orphan) Processes() []int {
	var pids []int
	for _, top := range []int{o.shim.pid(), o.hello.PID} {
		if top < 2 {
			continue
		}
		for _, p := range Descendants(top) {
			pids = append(pids, p.PID)
		}
	}
	if o.hello.PID > 1 {
		pids = append(pids, o.hello.PID)
	}
	return pids
}

// End ends the process, and returns when nothing of it is left, in group neither if it is not nil.
func (o *Orphan) End(ctx context.Context, group *limits.Group) {
	if o.output == nil {
		var err error
		if o.output, err = os.Open(os.DevNull); err != nil {
			return
		}
	}
	w := o.worker()
	w.group = group
	go w.wait(o.output, func([]byte) {})
	w.Stop(ctx)
}
