package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pexpress/pexpress/cache/durable"
)

// findPlugin returns the program of a plugin: a path as it is, or pexpress-plugin-NAME on PATH.
func findPlugin(name string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return filepath.Abs(name)
	}
	program, err := exec.LookPath("pexpress-plugin-" + name)
	if err != nil {
		return "", fmt.Errorf("plugin %s: there is no pexpress-plugin-%s on PATH: install it, or name its program by a path", name, name)
	}
	return filepath.Abs(program)
}

// interpreterOf returns what a sandboxed script has to read of its interpreter, if that lies in a virtual environment: the
// environment and the installation that it was made of.
func interpreterOf(program string) []string {
	f, err := os.Open(program)
	if err != nil {
		return nil
	}
	defer f.Close()
	line, _ := bufio.NewReaderSize(f, 4<<10).ReadSlice('\n')
	words := strings.Fields(strings.TrimPrefix(string(line), "#!"))
	if !strings.HasPrefix(string(line), "#!") || len(words) == 0 {
		return nil
	}
	env := filepath.Dir(filepath.Dir(words[0]))
	config, err := durable.ReadFile(filepath.Join(env, "pyvenv.cfg"))
	if err != nil {
		return nil
	}
	paths := []string{env}
	for text := range strings.Lines(string(config)) {
		if key, value, ok := strings.Cut(text, "="); ok && strings.TrimSpace(key) == "home" {
			paths = append(paths, filepath.Dir(strings.TrimSpace(value)))
		}
	}
	return paths
}
