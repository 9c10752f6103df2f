// Package secrets reads the values that the codeserver's operator gives to locations, from where they are kept:
//
//	[location.orders]
//	DB_PASSWORD = { file = "/etc/orders/password" }
//	API_KEY     = { command = ["pass", "show", "orders/api"] }
//	TOKEN       = { env = "ORDERS_TOKEN" }
//
// No value is in an error.
package secrets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
)

// ErrNotGiven says that the operator gives a location no secret of that name.
var ErrNotGiven = errors.New("the codeserver's operator gives no such secret")

// Set says where the secrets of each location are.
type Set struct {
	path      string
	locations map[string]map[string]source
}

// source is where one secret is. Exactly one field is set.
type source struct {
	file    string
	command []string
	env     string
}

// maxSize is the size of the largest file and the largest value: a variable may have 128 KiB on Linux.
const maxSize = 64 << 10

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckName refuses names that cannot be a secret's: those by which the codeserver, the interpreter and the dynamic linker
// are told what to do.
func CheckName(name string) error {
	reserved := name == "PATH" || name == "PORT" || name == "VIRTUAL_ENV"
	for _, prefix := range []string{"PYTHON", "PEXPRESS_", "LD_"} {
		reserved = reserved || strings.HasPrefix(name, prefix)
	}
	switch {
	case !variable.MatchString(name):
		return fmt.Errorf("%.80q is no name for a secret: it becomes an environment variable", name)
	case reserved:
		return fmt.Errorf("%.80q is no name for a secret: such a variable says how the process starts", name)
	}
	return nil
}

// Read reads the operator's file. It must be the codeserver's user's or root's, and nobody else may read or change it: it
// holds commands that run as the codeserver's user.
func Read(path string) (*Set, error) {
	b, st, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the secrets' file: %w", err)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("the secrets' file %s is the user %d's: it must be root's or the codeserver's", path, st.Uid)
	}
	if st.Mode&0o027 != 0 {
		return nil, fmt.Errorf("the secrets' file %s has the mode %04o: others can read or change it; chmod 600 %s", path, st.Mode&0o7777, path)
	}
	var raw struct {
		Location map[string]map[string]any `toml:"location"`
	}
	d := toml.NewDecoder(strings.NewReader(string(b))).DisallowUnknownFields()
	if err := d.Decode(&raw); err != nil {
		return nil, fmt.Errorf("the secrets' file %s%s", path, position(err))
	}
	s := &Set{path: path, locations: map[string]map[string]source{}}
	for location, names := range raw.Location {
		s.locations[location] = map[string]source{}
		for name, value := range names {
			src, err := parse(value)
			if err == nil {
				err = CheckName(name)
			}
			if err != nil {
				return nil, fmt.Errorf("the secrets' file %s: location.%s.%s: %w", path, location, name, err)
			}
			s.locations[location][name] = src
		}
	}
	return s, nil
}

// position says where a file is wrong. The library's own words can quote the file, and somebody may have written a value
// into it.
func position(err error) string {
	if at := (*toml.DecodeError)(nil); errors.As(err, &at) {
		line, column := at.Position()
		return fmt.Sprintf(":%d:%d is not as it must be", line, column)
	}
	return " holds something other than tables [location.NAME]"
}

var errForm = errors.New(`must be one of { file = "/…" }, { command = ["…"] } and { env = "…" }; a value itself has no place here`)

// parse reads where a secret is.
func parse(value any) (source, error) {
	m, ok := value.(map[string]any)
	if !ok || len(m) != 1 {
		return source{}, errForm
	}
	var s source
	for key, v := range m {
		switch key {
		case "file":
			if s.file, _ = v.(string); !filepath.IsAbs(s.file) {
				return source{}, errors.New("file must be an absolute path")
			}
		case "env":
			if s.env, _ = v.(string); !variable.MatchString(s.env) {
				return source{}, errors.New("env must be the name of a variable of the codeserver's")
			}
		case "command":
			list, _ := v.([]any)
			for _, arg := range list {
				text, ok := arg.(string)
				if !ok {
					return source{}, errors.New("command must be a list of strings")
				}
				s.command = append(s.command, text)
			}
			if len(s.command) == 0 || s.command[0] == "" {
				return source{}, errors.New("command must be a program and its arguments")
			}
		default:
			return source{}, errForm
		}
	}
	return s, nil
}

// Values returns the values of a location's secrets, by name, as they are now.
func (s *Set) Values(ctx context.Context, location string, names []string) (map[string]string, error) {
	values := map[string]string{}
	for _, name := range slices.Sorted(slices.Values(names)) {
		src, ok := s.locations[location][name]
		if !ok {
			return nil, fmt.Errorf("%w: %s for the location %s; add it to [location.%s] of %s", ErrNotGiven, name, location, location, s.path)
		}
		value, err := src.value(ctx)
		if err == nil {
			value = strings.TrimSuffix(strings.TrimSuffix(value, "\n"), "\r")
			err = check(value)
		}
		if err != nil {
			return nil, fmt.Errorf("the secret %s of the location %s: %w", name, location, err)
		}
		values[name] = value
	}
	return values, nil
}

func check(value string) error {
	switch {
	case value == "":
		return errors.New("its value is empty")
	case len(value) > maxSize:
		return fmt.Errorf("its value is larger than %d bytes", maxSize)
	case strings.ContainsRune(value, 0):
		return errors.New("its value holds a NUL, which no variable can")
	}
	return nil
}

func (s source) value(ctx context.Context) (string, error) {
	switch {
	case s.file != "":
		b, _, err := readFile(s.file)
		return string(b), err
	case s.env != "":
		value, ok := os.LookupEnv(s.env)
		if !ok {
			return "", fmt.Errorf("the codeserver has no variable %s", s.env)
		}
		return value, nil
	default:
		return run(ctx, s.command)
	}
}

// readFile reads a small regular file, and nothing that would make it wait.
func readFile(path string) ([]byte, *syscall.Stat_t, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is no regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+2))
	if len(b) > maxSize+1 {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes", path, maxSize)
	}
	return b, st.Sys().(*syscall.Stat_t), err
}
