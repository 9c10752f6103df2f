package codeserver

import "slices"

// maxUnserved is how many versions that came to nothing are remembered, in all, of locations that serve nothing: anyone who may deploy
// may give them names.
const maxUnserved = 8

// remember keeps the log of a version whose deploy came to nothing, and the version's name to find it by: with its process all else
// that says why has gone. Server.mu is held.
func (s *Server) remember(l *location, v *version) {
	if v.log.isEmpty() || slices.ContainsFunc(l.versions, func(x *version) bool { return x.name == v.name }) {
		return
	}
	s.unserved = append([]*version{v}, s.unserved...)
	of, nowhere := map[string]int{}, 0
	serves := func(x *version) bool { // the location can be another one of that name by now
		l := s.locations[x.location.name]
		return l != nil && l.current != nil
	}
	s.unserved = slices.DeleteFunc(s.unserved, func(x *version) bool {
		if x != v && x.name == v.name && x.location.name == l.name {
			return true
		}
		of[x.location.name]++
		if !serves(x) {
			nowhere++
		}
		return of[x.location.name] > keepFailed || !serves(x) && nowhere > maxUnserved
	})
}

// unservedOf returns the versions of a location that came to nothing, newest first. Server.mu is held.
func (s *Server) unservedOf(location string) []*version {
	return slices.DeleteFunc(slices.Clone(s.unserved), func(v *version) bool { return v.location.name != location })
}

// forget forgets the versions of a location that came to nothing. Server.mu is held.
func (s *Server) forget(location string) {
	s.unserved = slices.DeleteFunc(s.unserved, func(v *version) bool { return v.location.name == location })
}
