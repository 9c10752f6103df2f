package venv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// maxShebang is the longest first line that every Linux kernel reads whole, its newline included.
const maxShebang = 127

// shebang returns the first lines that make a script run with python. Where a first line cannot say it, the shell
// does, by means of lines that are a string to Python; this is the text that pip's installer writes.
func shebang(python, args string) string {
	line := "#!" + python + args + "\n"
	if len(line) <= maxShebang && !strings.ContainsAny(python, " \t") {
		return line
	}
	if strings.ContainsAny(python, " \t") {
		python = `"` + python + `"`
	}
	return "#!/bin/sh\n'''exec' " + python + args + ` "$0" "$@"` + "\n' '''\n"
}

// text returns the script that calls an entry point.
func (s script) text(python string) string {
	first, _, _ := strings.Cut(s.Attr, ".")
	return shebang(python, "") + fmt.Sprintf(`# -*- coding: utf-8 -*-
import sys
from %s import %s
if __name__ == "__main__":
    sys.exit(%s())
`, s.Module, first, s.Attr)
}

// pythonLine is the first line that asks for the environment's interpreter (PEP 427).
var pythonLine = regexp.MustCompile(`^#!pythonw?[0-9.]*([ \t][^\r\n]*)?\r?(\n|$)`)

// scripts fills bin. final is where the environment will be.
func (l *linker) scripts(final string, wheels []Wheel, dirs []string, infos []*unpacked) error {
	python := filepath.Join(final, "bin", "python")
	from := map[string]string{}
	for i, w := range wheels {
		entries, err := os.ReadDir(filepath.Join(dirs[i], "bin"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if !l.claim(e.Name(), w.Filename, from) {
				continue
			}
			if err := l.script(filepath.Join(dirs[i], "bin", e.Name()), e.Name(), python); err != nil {
				return err
			}
		}
		for _, s := range infos[i].Scripts {
			if !l.claim(s.Name, w.Filename, from) {
				continue
			}
			if err := writeFile(filepath.Join(l.root, "bin", s.Name), []byte(s.text(python)), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// claim makes room for a script of the wheel, and says if it takes another's place.
func (l *linker) claim(name, wheel string, from map[string]string) bool {
	if l.reserved["bin/"+name] {
		l.warn("%s: bin/%s is the environment's own and is left out", wheel, name)
		return false
	}
	path := filepath.Join(l.root, "bin", name)
	st, err := os.Lstat(path)
	switch {
	case err == nil && st.IsDir():
		l.warn("%s: bin/%s is a directory of other wheels' data, the script is left out", wheel, name)
		return false
	case err == nil:
		// Never written in place: it may be a symlink to a file that environments share.
		if err := os.Remove(path); err != nil {
			l.warn("%s: bin/%s: %v", wheel, name, err)
			return false
		}
		was := from[name]
		if was == "" {
			was = "another wheel's data"
		}
		l.warn("%s: bin/%s replaces that of %s", wheel, name, was)
	}
	from[name] = wheel
	return true
}

// script puts a script that came in the wheel into bin: a copy if it asks for the environment's Python, else a symlink.
func (l *linker) script(path, name, python string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	head := make([]byte, len("#!python"))
	n, _ := f.Read(head)
	if err := f.Close(); err != nil {
		return err
	}
	to := filepath.Join(l.root, "bin", name)
	if !bytes.Equal(head[:n], []byte("#!python")) {
		return os.Symlink(path, to)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if m := pythonLine.FindSubmatchIndex(b); m != nil {
		args := ""
		if m[2] >= 0 {
			args = strings.TrimRight(string(b[m[2]:m[3]]), " \t")
		}
		b = append([]byte(shebang(python, args)), b[m[1]:]...)
	}
	return writeFile(to, b, 0o755)
}
