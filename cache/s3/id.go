package s3

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// id names an object: a random UUID, never used twice, so that an object is the same for as long as it exists.
type id [16]byte

func newID() id { return id(uuid.New()) }

// String returns 32 hexadecimal digits.
func (i id) String() string { return hex.EncodeToString(i[:]) }

// MarshalText implements encoding.TextMarshaler.
func (i id) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *id) UnmarshalText(b []byte) error {
	p, ok := parseID(string(b))
	if !ok {
		return fmt.Errorf("%.40q is not an object's id: want 32 hexadecimal digits", b)
	}
	*i = p
	return nil
}

func parseID(s string) (i id, ok bool) {
	if len(s) != 2*len(i) || s != strings.ToLower(s) {
		return id{}, false
	}
	_, err := hex.Decode(i[:], []byte(s))
	return i, err == nil
}

// The kinds of objects, by the first part of their keys. A tail has the id of the pack that it indexes.
const (
	manifestKey = "manifest"
	packDir     = "pack/"
	tailDir     = "tail/"
	runDir      = "run/"
	shardDir    = "shard/"
	touchDir    = "touch/"
	rootDir     = "root/"
	probeDir    = "probe/"
)

// idOf returns the id in a key of the given kind.
func idOf(dir, key string) (id, bool) {
	rest, ok := strings.CutPrefix(key, dir)
	if !ok {
		return id{}, false
	}
	return parseID(rest)
}
