package codeserver

import (
	"github.com/pexpress/pexpress/cache"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// API returns the control API for callers within the process, who have to see to it themselves who may do what.
func (s *Server) API() codeserverpb.CodeServerServer { return &service{server: s} }

// Changes returns a channel that is sent to when something that List shows has changed; what versions use does not count.
func (s *Server) Changes() (changes <-chan struct{}, stop func()) { return s.watch() }

// Trees returns the Directories of all kept versions, for reading.
func (s *Server) Trees() cache.CAS { return s.loader.CAS() }
