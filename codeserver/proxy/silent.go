package proxy

import (
	"net"
	"net/http"
	"sync"
)

// silent counts the connections that have not sent anything yet.
type silent struct {
	n   counter
	all sync.Map // of them, by net.Conn
}

// note is the server's ConnState.
func (s *silent) note(c net.Conn, state http.ConnState) {
	if state == http.StateNew {
		s.n.inc()
		s.all.Store(c, nil)
		return
	}
	if _, was := s.all.LoadAndDelete(c); was {
		s.n.dec()
	}
}
