package codeserver

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pexpress/pexpress/codeserver/proc"
	"github.com/pexpress/pexpress/codeserver/sandbox"
)

// Users are the ids, of users and of groups, that a codeserver gives to its locations and to their zygotes. There is none
// in the zero value: versions run as the codeserver's own user then, and Without says why.
type Users struct {
	First, Last int
	Without     string
}

// DefaultUsers are ids that no distribution and no other program is known to give away: systemd's table of them
// (https://systemd.io/UIDS-GIDS) has them as unused.
var DefaultUsers = Users{First: 60706, Last: 61183}

// fewestUsers is enough for one location, its zygotes, and the next one while the last of an old one ends.
const fewestUsers = 8

// ParseUsers reads "auto", "none" or a range such as "60706-61183". With auto there are users where this process can give
// them to others.
func ParseUsers(text string) (Users, error) {
	switch text {
	case "none":
		return Users{Without: "--users none"}, nil
	case "auto":
		if err := sandbox.Check(); err != nil {
			return Users{Without: err.Error()}, nil
		}
		return DefaultUsers, nil
	}
	first, last, ok := strings.Cut(text, "-")
	from, err := strconv.Atoi(first)
	to, lerr := strconv.Atoi(last)
	if !ok || err != nil || lerr != nil || !mayBeGiven(from) || !mayBeGiven(to) || to-from+1 < fewestUsers {
		return Users{}, fmt.Errorf("%q is neither auto, none nor a range such as %d-%d of at least %d ids from 1000 on", text, DefaultUsers.First, DefaultUsers.Last, fewestUsers)
	}
	if err := sandbox.Check(); err != nil {
		return Users{}, fmt.Errorf("versions cannot have users of their own: %w", err)
	}
	return Users{First: from, Last: to}, nil
}

// mayBeGiven reports whether an id is neither the system's nor one that says something else to the kernel, such as -1.
func mayBeGiven(id int) bool { return id >= 1000 && id <= 1<<31-2 }

// None reports whether there are no such ids.
func (u Users) None() bool { return u.Last == 0 }

// Has reports whether an id is one that versions and zygotes get.
func (u Users) Has(id int) bool { return !u.None() && id >= u.First && id <= u.Last }

// errNoUser says that all ids are in use.
var errNoUser = errors.New("no user is left in the range that --users gives, of which locations and their zygotes take one each; remove locations, or give more")

// userOf returns the user of a location's versions, which it gets with its first one, 0 if there are none.
func (s *Server) userOf(l *location) (int, error) {
	if s.opts.Users.None() {
		return 0, nil
	}
	s.giving.Lock()
	defer s.giving.Unlock()
	s.mu.Lock()
	id := l.user
	s.mu.Unlock()
	if id != 0 {
		return id, nil
	}
	id, err := s.freeUser()
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	l.user = id
	s.mu.Unlock()
	return id, nil
}

// zygoteUser returns a user for a zygote. It is its own as long as it runs, or anything that it has forked.
func (s *Server) zygoteUser() (int, error) {
	s.giving.Lock()
	defer s.giving.Unlock()
	return s.freeUser()
}

// freeUser returns an id that is nobody's. They are given in turn: the one that was free for longest comes first, and what
// was its is gone by then. Server.giving is held, and mu is not: all processes are looked at, and the host's users.
func (s *Server) freeUser() (int, error) {
	u := s.opts.Users
	taken := usersOfProcesses()
	homes, err := os.ReadDir(s.homes())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	for _, e := range homes {
		id, _ := strconv.Atoi(strings.TrimPrefix(filepath.Ext(e.Name()), "."))
		taken[id] = true
	}
	s.mu.Lock()
	for _, l := range slices.AppendSeq(slices.Clone(s.leaving), maps.Values(s.locations)) {
		taken[l.user] = true
	}
	id := s.lastUser
	s.mu.Unlock()
	for range u.Last - u.First + 1 {
		if id++; id < u.First || id > u.Last {
			id = u.First
		}
		if !taken[id] && !known(id) {
			s.mu.Lock()
			s.lastUser = id
			s.mu.Unlock()
			return id, nil
		}
	}
	return 0, fmt.Errorf("%w: %w", errRefused, errNoUser)
}

// known reports whether the host has a user or a group of this id.
func known(id int) bool {
	_, uerr := user.LookupId(strconv.Itoa(id))
	_, gerr := user.LookupGroupId(strconv.Itoa(id))
	return uerr == nil || gerr == nil
}

// usersOfProcesses returns the users of all processes.
func usersOfProcesses() map[int]bool {
	users := map[int]bool{}
	for _, pid := range proc.PIDs() {
		status, _ := proc.Status(pid) // it may have ended
		for _, id := range strings.Fields(status["Uid"]) {
			n, _ := strconv.Atoi(id)
			users[n] = true
		}
	}
	return users
}
