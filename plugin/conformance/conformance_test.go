package conformance

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/plugin/sandbox"
)

// The test binary is the builder: its second argument says in which way it is bad.
func TestMain(m *testing.M) {
	sandbox.InitMain()
	if len(os.Args) > 2 && os.Args[1] == "fault" {
		os.Exit(faulty(os.Args[2]))
	}
	os.Exit(m.Run())
}

// run returns what each check found about the builder with a fault.
func run(t *testing.T, fault string) (map[string]Result, error) {
	self, err := os.Executable()
	require.NoError(t, err)
	found := map[string]Result{}
	err = Run(t.Context(), Options{Command: []string{self, "fault", fault}, Timeout: 20 * time.Second}, func(r Result) {
		found[r.Check] = r
	})
	require.Len(t, found, len(checks), "each check says something")
	return found, err
}

// TestGood checks a builder that keeps all rules, Go's own way.
func TestGood(t *testing.T) {
	found, err := run(t, "none")
	for _, r := range found {
		require.NoError(t, r.Err, r.Check)
		require.Empty(t, r.Skipped, r.Check)
	}
	require.NoError(t, err)
}

// TestFaults checks builders with one fault each: the check that is about it fails, and says so in words of its own.
func TestFaults(t *testing.T) {
	const determinism = "same outputs whatever the clock, TZ, locale, hash seed, paths"
	for fault, want := range map[string]struct{ check, says string }{
		"runs-by-hand":        {"by hand: says what it is and ends", "goes on"},
		"silent-by-hand":      {"by hand: says what it is and ends", "without a word"},
		"exits":               {"handshake", "I would rather not"},
		"garbage":             {"handshake", "Hello, World!"},
		"endless-line":        {"handshake", "more than 4095 bytes"},
		"core":                {"handshake", "core version"},
		"old":                 {"handshake", `with version "0"`},
		"tcp":                 {"handshake", "unix socket only"},
		"elsewhere":           {"handshake", "not in $PLUGIN_UNIX_SOCKET_DIR"},
		"too-early":           {"handshake", "before there is a socket"},
		"echoes-version":      {"protocol versions", "claims to speak"},
		"only-one":            {"protocol versions", "has to take 1"},
		"lives-on":            {"lifeline: ends with its host", "goes on"},
		"unhealthy":           {"health", "does not answer"},
		"needs-etc":           {"starts in the sandbox", "no such file"},
		"bad-name":            {"describe", "lower-case"},
		"other-kinds":         {"describe", "and then as"},
		"no-kinds":            {"describe", "no kind"},
		"fails":               {"builds", "out of order"},
		"not-executable":      {"canonical trees", "not executable"},
		"empty-directory":     {"canonical trees", "empty"},
		"guesses-blob":        {"canonical trees", "neither wrote it"},
		"fixed-path":          {"output path of the Command", "the Command asks for"},
		"any-kind":            {"unknown kind: INVALID_ARGUMENT", "is built"},
		"wrong-code":          {"unknown kind: INVALID_ARGUMENT", "in another way"},
		"any-version":         {"unknown output version: UNIMPLEMENTED", "is built"},
		"blames-user":         {"unreadable input: FAILED_PRECONDITION", "in another way"},
		"mixes-up":            {"several builds at once", "alone it is"},
		"mixes-up-the-second": {"several builds at once", "alone it is"},
		"remembers":           {"asks for declared blobs only", "does not declare"},
		"clock":               {determinism, "a second later"},
		"timezone":            {determinism, "a second later"},
		"locale":              {determinism, "a second later"},
		"hash-seed":           {determinism, "a second later"},
		"tmpdir":              {determinism, "a second later"},
		"reads-host":          {"reads nothing outside its inputs", "where only the inputs can be read"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			found, err := run(t, fault)
			require.ErrorIs(t, err, ErrFailed)
			require.Error(t, found[want.check].Err, "%s is not found: %v", fault, found)
			require.ErrorContains(t, found[want.check].Err, want.says)
			for name, r := range found {
				if r.Err != nil && name != want.check {
					require.Contains(t, alsoFail[fault], name, "%s: %v", fault, r.Err)
				}
			}
		})
	}
}

// alsoFail are checks that cannot but fail with a fault that another is about.
var alsoFail = map[string]string{
	"exits": "protocol versions", "garbage": "protocol versions", "endless-line": "protocol versions", "old": "protocol versions", "silent-by-hand": "",
	"only-one": "", "fails": "unknown kind: INVALID_ARGUMENT unknown output version: UNIMPLEMENTED unreadable input: FAILED_PRECONDITION",
	"tmpdir": "", "mixes-up": "", "wrong-code": "",
}

// TestCancelled ends the checks of a builder that hangs.
func TestCancelled(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	err = Run(ctx, Options{Command: []string{self, "fault", "none"}, Timeout: 20 * time.Second}, func(r Result) {
		if strings.HasPrefix(r.Check, "handshake") {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
}
