package codeserver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

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
	if !ok || err != nil || lerr != nil || from < 1000 || to > 1<<31-2 || to-from+1 < fewestUsers {
		return Users{}, fmt.Errorf("%q is neither auto, none nor a range such as %d-%d of at least %d ids from 1000 on", text, DefaultUsers.First, DefaultUsers.Last, fewestUsers)
	}
	if err := sandbox.Check(); err != nil {
		return Users{}, fmt.Errorf("versions cannot have users of their own: %w", err)
	}
	return Users{First: from, Last: to}, nil
}

func (u Users) none() bool { return u.Last == 0 }

// errNoUser says that all ids are in use.
var errNoUser = errors.New("no user is left in the range that --users gives; remove locations, or give more")

// userOf returns the user of a location's versions, which it gets with its first one, 0 if there are none.
func (s *Server) userOf(l *location) (int, error) {
	if s.opts.Users.none() {
		return 0, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.user != 0 {
		return l.user, nil
	}
	id, err := s.freeUser()
	if err != nil {
		return 0, err
	}
	l.user = id
	return id, nil
}

// zygoteUser returns a user for a zygote. It is its own as long as it runs, or anything that it has forked.
func (s *Server) zygoteUser() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.freeUser()
}

// freeUser returns an id that is nobody's. They are given in turn: the one that was free for longest comes first, and what
// was its is gone by then. Server.mu is held.
func (s *Server) freeUser() (int, error) {
	u := s.opts.Users
	taken, err := usersOfProcesses()
	if err != nil {
		return 0, err
	}
	for _, l := range s.locations {
		taken[l.user] = true
	}
	for _, l := range s.leaving {
		taken[l.user] = true
	}
	homes, err := os.ReadDir(s.homes())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	for _, e := range homes {
		id, _ := strconv.Atoi(strings.TrimPrefix(filepath.Ext(e.Name()), "."))
		taken[id] = true
	}
	for range u.Last - u.First + 1 {
		if s.lastUser++; s.lastUser < u.First || s.lastUser > u.Last {
			s.lastUser = u.First
		}
		if !taken[s.lastUser] && !known(s.lastUser) {
			return s.lastUser, nil
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
func usersOfProcesses() (map[int]bool, error) {
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return nil, err
	}
	users := map[int]bool{}
	for _, file := range files {
		b, _ := os.ReadFile(file) // a process may have ended
		for line := range bytes.Lines(b) {
			if ids, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
				for _, id := range bytes.Fields(ids) {
					n, _ := strconv.Atoi(string(id))
					users[n] = true
				}
			}
		}
	}
	return users, nil
}
