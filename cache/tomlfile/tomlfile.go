// Package tomlfile reads configuration files so that whoever writes one learns what is wrong with it, and where.
package tomlfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Decode reads a file's content. A key that into has no place for is an error: a right or a limit that is misspelt must not
// be missed.
func Decode(content []byte, into any) error {
	return explain(toml.NewDecoder(bytes.NewReader(content)).DisallowUnknownFields().Decode(into))
}

// explain says where in the file the error is.
func explain(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		var keys []string
		for i := range unknown.Errors {
			line, _ := unknown.Errors[i].Position()
			keys = append(keys, fmt.Sprintf("line %d: there is no key %q", line, strings.Join(unknown.Errors[i].Key(), ".")))
		}
		return errors.New(strings.Join(keys, "; "))
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, column := bad.Position()
		return fmt.Errorf("line %d, column %d: %s", line, column, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	return err
}
