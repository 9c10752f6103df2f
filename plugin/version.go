package plugin

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pexpress/pexpress/cache/lazy"
)

// ProtocolVersion is the version of the protocol that this package speaks, as a host and as a builder. A host offers what
// it speaks in PLUGIN_PROTOCOL_VERSIONS, a builder answers with the highest of them that it speaks too.
const ProtocolVersion = 1

// ErrProtocol says that a host and a builder have no version of the protocol in common.
var ErrProtocol = errors.New("no version of the plugin protocol in common")

const offered = "PLUGIN_PROTOCOL_VERSIONS"

// checkOffer is a builder's side: it refuses a host that does not offer the version spoken here. One that offers nothing is
// older than the variable, and finds out by the handshake.
func checkOffer() error {
	versions := os.Getenv(offered)
	if versions == "" || slices.Contains(strings.Split(versions, ","), strconv.Itoa(ProtocolVersion)) {
		return nil
	}
	return fmt.Errorf("%w: pexpress speaks %s, this builder %d: install versions of both that are of one time", ErrProtocol, versions, ProtocolVersion)
}

// go-plugin has no type for these, only text.
var (
	otherVersion = lazy.Regexp(`(?i)incompatible API version with plugin\. Plugin version: (\d+)`)
	otherCore    = lazy.Regexp(`(?i)incompatible core API version with plugin\. Plugin version: (\d+)`)
)

// versionError says what to do about a handshake of another version; nil if an error is about something else.
func versionError(err error) error {
	text := err.Error()
	if m := otherVersion().FindStringSubmatch(text); m != nil {
		theirs, aerr := strconv.Atoi(m[1])
		what := "it is older than this pexpress: install a newer release of the builder"
		if aerr != nil || theirs > ProtocolVersion {
			what = "it is newer than this pexpress: install a newer pexpress, or an older release of the builder"
		}
		return fmt.Errorf("%w: the builder answers with version %s, this pexpress speaks %d; %s", ErrProtocol, m[1], ProtocolVersion, what)
	}
	if m := otherCore().FindStringSubmatch(text); m != nil {
		return fmt.Errorf("%w: the first field of the builder's handshake is %s, and go-plugin's own version is %d; docs/plugins.md has the line",
			ErrProtocol, m[1], coreVersion)
	}
	return nil
}

// coreVersion is go-plugin's, the first field of the handshake.
const coreVersion = 1
