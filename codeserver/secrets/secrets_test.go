package secrets_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/pexpress/pexpress/codeserver/secrets"
)

// hidden must be in no error.
const hidden = "s3cr3t-value"

func file(t *testing.T, name, content string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestValues(t *testing.T) {
	t.Setenv("OPERATORS_TOKEN", "from env")
	value := file(t, "value", "from file\n")
	set, err := secrets.Read(file(t, "secrets.toml", `
[location.orders]
A = { file = "`+value+`" }
B = { command = ["sh", "-c", "printf 'from command'; echo noise >&2"] }
C = { env = "OPERATORS_TOKEN" }
[location.other]
D = { env = "OPERATORS_TOKEN" }
`))
	require.NoError(t, err)
	got, err := set.Values(t.Context(), "orders", []string{"A", "B", "C"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"A": "from file", "B": "from command", "C": "from env"}, got)
	for _, location := range []string{"orders", "third"} {
		_, err = set.Values(t.Context(), location, []string{"D"})
		require.ErrorIs(t, err, secrets.ErrNotGiven, "another location's")
	}
	require.NoError(t, os.WriteFile(value, []byte("changed"), 0o600))
	got, err = set.Values(t.Context(), "orders", []string{"A"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"A": "changed"}, got)
}

func TestFilesThatAreRefused(t *testing.T) {
	for name, content := range map[string]string{
		"value itself":  `[location.orders]` + "\n" + `A = "` + hidden + `"`,
		"broken":        `[location.orders]` + "\n" + `A = ` + hidden,
		"two ways":      `[location.orders]` + "\n" + `A = { env = "X", file = "/x" }`,
		"other key":     `[location.orders]` + "\n" + `A = { value = "` + hidden + `" }`,
		"relative":      `[location.orders]` + "\n" + `A = { file = "x" }`,
		"no command":    `[location.orders]` + "\n" + `A = { command = [] }`,
		"not at home":   `A = "` + hidden + `"`,
		"PORT":          `[location.orders]` + "\n" + `PORT = { env = "X" }`,
		"PYTHONPATH":    `[location.orders]` + "\n" + `PYTHONPATH = { env = "X" }`,
		"LD_PRELOAD":    `[location.orders]` + "\n" + `LD_PRELOAD = { env = "X" }`,
		"no name":       `[location.orders]` + "\n" + `"A B" = { env = "X" }`,
		"not a table":   `location = "` + hidden + `"`,
		"number in cmd": `[location.orders]` + "\n" + `A = { command = ["x", 1] }`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := secrets.Read(file(t, "secrets.toml", content))
			require.Error(t, err)
			require.NotContains(t, err.Error(), hidden)
		})
	}
}

func TestModes(t *testing.T) {
	path := file(t, "secrets.toml", "")
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o644: false, 0o660: false, 0o602: false} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := secrets.Read(path)
		require.Equal(t, ok, err == nil, "%o: %v", mode, err)
	}
	require.NoError(t, os.Chmod(path, 0o600))
	if os.Getuid() == 0 {
		require.NoError(t, os.Chown(path, 12345, 0))
		_, err := secrets.Read(path)
		require.ErrorContains(t, err, "user 12345")
	}
}

func TestValuesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	for name, source := range map[string]string{
		"no file":      `{ file = "` + dir + `/none" }`,
		"a fifo":       `{ file = "` + fifo + `" }`,
		"too large":    `{ file = "` + file(t, "large", strings.Repeat(hidden, 10_000)) + `" }`,
		"large output": `{ command = ["sh", "-c", "yes ` + hidden + ` | head -c 100000"] }`,
		"empty":        `{ file = "` + file(t, "empty", "\n") + `" }`,
		"NUL":          `{ file = "` + file(t, "nul", hidden+"\x00") + `" }`,
		"no variable":  `{ env = "NOBODY_SETS_THIS" }`,
		"fails":        `{ command = ["sh", "-c", "echo ` + "$0" + `; echo $0 >&2; exit 3", "` + hidden + `"] }`,
		"no program":   `{ command = ["/none/of/this"] }`,
	} {
		t.Run(name, func(t *testing.T) {
			set, err := secrets.Read(file(t, "secrets.toml", "[location.orders]\nA = "+source))
			require.NoError(t, err)
			_, err = set.Values(t.Context(), "orders", []string{"A"})
			require.ErrorContains(t, err, "the secret A of the location orders")
			require.NotContains(t, err.Error(), hidden)
		})
	}
}

func TestNameOfTheFileIsInErrors(t *testing.T) {
	_, err := secrets.Read("/none/secrets.toml")
	require.ErrorContains(t, err, "/none/secrets.toml")
}
