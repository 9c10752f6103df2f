package main

import (
	"os"
	"path/filepath"

	"github.com/pexpress/pexpress/plugin/project"
)

// above says that the project seems to be in a directory above the one that was chosen, "" if it does not.
func (a *app) above() string {
	dir := project.Above(a.dir)
	if dir == "" {
		return ""
	}
	return "the project seems to be " + dir + ": pass -C " + a.relative(dir)
}

// relative is a directory as it is named from the one where the command runs.
func (a *app) relative(dir string) string {
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, dir); err == nil {
			return rel
		}
	}
	return dir
}

// checkEntry returns an error unless the configuration says what a location runs.
func (s *session) checkEntry(loc *project.Location) error {
	err := loc.CheckEntry()
	if err == nil {
		return nil
	}
	if above := s.app.above(); above != "" {
		return inputErrorf("%s has no configuration; %s", s.project.Dir, above)
	}
	return inputError{err}
}

// otherServers says how a codeserver is named that is not the default one.
func (a *app) otherServers() string {
	if dir := project.Above(a.dir); dir != "" {
		if p, err := project.Load(dir); err == nil && p.Codeserver != "" {
			return " (the configuration in " + dir + " names another one, " + p.Codeserver + ": pass -C " + a.relative(dir) + ")"
		}
	}
	return " (another one is named by --to, PEXPRESS_CODESERVER or the project's configuration)"
}
