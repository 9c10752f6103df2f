package venv

import (
	"bufio"
	"bytes"
	"regexp"
	"strings"
	"unicode/utf8"
)

// script is a console or GUI script that is generated for each environment.
type script struct {
	Name   string `json:"name"`
	Module string `json:"module"`
	Attr   string `json:"attr"`
}

// reference is MODULE:ATTR, with extras that have no meaning anymore.
var reference = regexp.MustCompile(`^([\pL_][\pL\pN_]*(?:\.[\pL_][\pL\pN_]*)*)\s*:\s*([\pL_][\pL\pN_]*(?:\.[\pL_][\pL\pN_]*)*)\s*(?:\[[^\]]*\])?$`)

// readEntryPoints returns the scripts that entry_points.txt asks for.
func (n wheelName) readEntryPoints(m member) ([]script, error) {
	b, err := n.small(m, maxEntryPoints)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(b) {
		return nil, n.refuse(m.Name, "not UTF-8")
	}
	var scripts []script
	section := ""
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxEntryPoints+1)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
			continue
		case line[0] == '[' && line[len(line)-1] == ']':
			section = strings.TrimSpace(line[1 : len(line)-1])
			continue
		case section != "console_scripts" && section != "gui_scripts":
			continue
		}
		name, ref, _ := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		found := reference.FindStringSubmatch(strings.TrimSpace(ref))
		if found == nil {
			return nil, n.refuse(m.Name, "not a script: %q", line)
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
			return nil, n.refuse(m.Name, "not the name of a script: %q", name)
		}
		scripts = append(scripts, script{Name: name, Module: found[1], Attr: found[2]})
	}
	return scripts, lines.Err()
}
