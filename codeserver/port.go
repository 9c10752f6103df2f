package codeserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
)

// ports gives each version the one that it is to listen on. It is free when it is given, but the version listens only
// seconds later: meanwhile the kernel may give any port of its own range to somebody's connection. So they are of another
// range, from firstPort up to what the kernel begins with, and given in turn.
type ports struct {
	mu    sync.Mutex
	last  int   // 0 before the first
	given []int // the last that were given, newest first: where nearly all are taken their turn comes again before they are listened on
}

// notAgain is how many others are given before a port is given again.
const notAgain = 64

// firstPort and lastPort are what other programs choose from as well, Nomad among them: few are known for a port there.
const (
	firstPort = 20000
	lastPort  = 31999
)

// give returns a port that nobody listens on now.
func (p *ports) give() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == 0 { // several codeservers begin in several places
		p.last = firstPort + rand.IntN(lastPort-firstPort)
	}
	from, to := ofKernel()
	for range lastPort - firstPort + 1 {
		if p.last++; p.last > lastPort {
			p.last = firstPort
		}
		if p.last >= from && p.last <= to || slices.Contains(p.given, p.last) {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p.last)); err == nil {
			return p.note(l)
		}
	}
	for range notAgain {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		if !slices.Contains(p.given, l.Addr().(*net.TCPAddr).Port) {
			return p.note(l)
		}
		l.Close()
	}
	return 0, errors.New("no port of 127.0.0.1 is free")
}

// note returns the port that is free, as l shows, and remembers that it was given.
func (p *ports) note(l net.Listener) (int, error) {
	port := l.Addr().(*net.TCPAddr).Port
	p.given = append([]int{port}, p.given[:min(len(p.given), notAgain-1)]...)
	return port, l.Close()
}

// ofKernel returns the range that the kernel gives ports from.
func ofKernel() (from, to int) {
	from, to = 32768, 60999
	if b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(b), &from, &to)
	}
	return from, to
}
