package lock

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func target(t *testing.T, python, platform string) Target {
	got, err := ParseTarget(python, platform)
	require.NoError(t, err)
	return got
}

func TestMarkers(t *testing.T) {
	env := target(t, "3.11", "manylinux_2_28_x86_64").environment()
	env.extras = map[string]bool{"web-ui": true}
	env.groups = map[string]bool{"dev": true}
	for marker, want := range map[string]bool{
		`python_version >= "3.9"`:                      true,
		`python_version < "3.9"`:                       false,
		`python_version == "3.11.*"`:                   true,
		`python_version ~= "3.10"`:                     true,
		`python_full_version < "3.11.3"`:               true,
		`sys_platform == "win32"`:                      false,
		`sys_platform == 'linux' and os_name=='posix'`: true,
		`platform_python_implementation != "PyPy"`:     true,
		`"linux" in sys_platform`:                      true,
		`sys_platform not in "win32 cygwin"`:           true,
		`python_version in "3.10 3.11"`:                true,
		`extra == "web_ui"`:                            true,
		`extra == "other"`:                             false,
		`"Web.UI" in extras`:                           true,
		`"other" not in extras`:                        true,
		`"dev" in dependency_groups`:                   true,
		`"docs" in dependency_groups`:                  false,
		`platform_release >= "5.0"`:                    false,
		`os.name == "posix"`:                           true,
		`(python_version == "3.11")`:                   true,
		`python_version == "3.11" and (sys_platform == "linux" or extra == "x")`: true,
	} {
		ok, err := evaluate(marker, env)
		require.NoError(t, err, marker)
		require.Equal(t, want, ok, marker)
	}
	for _, marker := range []string{
		"", "python_version", `python_version >=`, `>= "3"`, `"a" "b" "c"`, `python_version == "3`, `(os_name == "a"`,
		`os_name == "a" and`, `os_name == "a" "b"`, `os_name ~= "a"`, `extras == "x"`, `extra < "x"`, `nothing == "1"`,
		strings.Repeat("(", 1000) + `os_name == "a"` + strings.Repeat(")", 1000), `os_name § "a"`,
	} {
		_, err := evaluate(marker, env)
		require.Error(t, err, "%.60q", marker)
	}
}

func TestPlatformMarkers(t *testing.T) {
	for platform, marker := range map[string]string{
		"musllinux_1_2_aarch64": `sys_platform == "linux" and platform_machine == "aarch64"`,
		"macosx_14_0_arm64":     `sys_platform == "darwin" and platform_system == "Darwin" and platform_machine == "arm64"`,
		"win_amd64":             `sys_platform == "win32" and os_name == "nt" and platform_machine == "AMD64"`,
	} {
		ok, err := target(t, "3.12", platform).Applies(marker)
		require.NoError(t, err)
		require.True(t, ok, platform)
	}
}

func TestTags(t *testing.T) {
	tags := target(t, "3.11", "manylinux_2_28_x86_64").Tags()
	order := []string{
		"cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux2014_x86_64",
		"cp311-cp311-manylinux1_x86_64", "cp311-cp311-linux_x86_64", "cp311-abi3-manylinux2014_x86_64",
		"cp311-none-linux_x86_64", "cp38-abi3-manylinux2014_x86_64", "py3-none-manylinux2014_x86_64",
		"cp311-none-any", "py311-none-any", "py3-none-any", "py310-none-any", "py30-none-any",
	}
	last := -1
	for _, tag := range order {
		i := slices.Index(tags, tag)
		require.Greater(t, i, last, tag)
		last = i
	}
	for _, tag := range []string{
		"cp311-cp311-manylinux_2_29_x86_64", "cp312-abi3-manylinux2014_x86_64", "py2-none-any",
		"cp311-cp311-musllinux_1_1_x86_64", "cp311-cp311-win_amd64",
	} {
		require.NotContains(t, tags, tag)
	}
	require.Contains(t, target(t, "3.12", "musllinux_1_2_aarch64").Tags(), "cp312-cp312-musllinux_1_1_aarch64")
	require.Contains(t, target(t, "3.12", "macosx_14_0_arm64").Tags(), "cp312-cp312-macosx_11_0_universal2")
	require.Contains(t, target(t, "3.12", "macosx_14_0_x86_64").Tags(), "cp312-cp312-macosx_10_9_x86_64")
	require.NotContains(t, target(t, "3.12", "macosx_14_0_arm64").Tags(), "cp312-cp312-macosx_10_9_x86_64")
	require.Contains(t, target(t, "3.11", "manylinux2014_x86_64").Tags(), "cp311-cp311-manylinux_2_17_x86_64")
	require.NotContains(t, target(t, "3.11", "manylinux_2_28_aarch64").Tags(), "cp311-cp311-manylinux_2_12_aarch64")
}

func TestRequiresPython(t *testing.T) {
	for specifiers, want := range map[string]bool{
		">=3.11": true, "==3.11.7": true, ">=3.11.2,<3.11.10": true, "<3.11": false, ">=3.12": false, "~=3.11.4": true, "!=3.11.*": false,
	} {
		ok, err := target(t, "3.11", DefaultPlatform).admittedBy(specifiers)
		require.NoError(t, err)
		require.Equal(t, want, ok, specifiers)
	}
	ok, err := target(t, "3.11.3", DefaultPlatform).admittedBy("==3.11.7")
	require.NoError(t, err)
	require.False(t, ok, "the patch release is known")
}

func TestParseTarget(t *testing.T) {
	for _, python := range []string{"", "3", "2.7", "3.x", "3.11.", "python3.11"} {
		_, err := ParseTarget(python, DefaultPlatform)
		require.Error(t, err, python)
	}
	for _, platform := range []string{"", "linux", "manylinux_3_1_x86_64", "../x", "manylinux_2_28", "x86_64"} {
		_, err := ParseTarget("3.11", platform)
		require.Error(t, err, platform)
	}
	require.Equal(t, Target{Python: "3.11", Patch: "3.11.7", Platform: "win_amd64"}, target(t, "3.11.7", "win_amd64"))
}

// wheel returns a wheel's entry of a lock.
func wheel(name string) string {
	return fmt.Sprintf("{ name = %q, url = \"http://index.test/%s\", size = 3, hashes = { sha256 = %q } }", name, name, strings.Repeat("ab", 32))
}

const head = "lock-version = \"1.0\"\ncreated-by = \"test\"\nrequires-python = \">=3.10\"\n"

func names(t *testing.T, doc string, target Target, s Selection) []string {
	l, err := Parse([]byte(doc))
	require.NoError(t, err)
	wheels, err := l.Select(target, s)
	require.NoError(t, err)
	var names []string
	for _, w := range wheels {
		names = append(names, w.Filename)
	}
	return names
}

func TestSelect(t *testing.T) {
	doc := head + `extras = ["web"]
dependency-groups = ["dev"]
[[packages]]
name = "fast"
version = "1.0"
wheels = [` + wheel("fast-1.0-py3-none-any.whl") + "," + wheel("fast-1.0-cp311-cp311-manylinux2014_x86_64.whl") + "," +
		wheel("fast-1.0-cp39-abi3-manylinux_2_28_x86_64.whl") + "," + wheel("fast-1.0-cp312-cp312-manylinux2014_x86_64.whl") + `]
[[packages]]
name = "built"
version = "1.0"
wheels = [` + wheel("built-1.0-py3-none-any.whl") + "," + wheel("built-1.0-2-py3-none-any.whl") + "," + wheel("built-1.0-10-py2.py3-none-any.whl") + `]
[[packages]]
name = "windows-only"
version = "1.0"
marker = "sys_platform == 'win32'"
wheels = [` + wheel("windows_only-1.0-py3-none-any.whl") + `]
[[packages]]
name = "web"
version = "1.0"
marker = "'web' in extras"
wheels = [` + wheel("web-1.0-py3-none-any.whl") + `]
[[packages]]
name = "dev"
version = "1.0"
marker = "'dev' in dependency_groups"
wheels = [` + wheel("dev-1.0-py3-none-any.whl") + `]
[[packages]]
name = "mine"
directory = { path = ".", editable = true }
`
	linux := target(t, "3.11", "manylinux_2_28_x86_64")
	require.Equal(t, []string{"built-1.0-10-py2.py3-none-any.whl", "fast-1.0-cp311-cp311-manylinux2014_x86_64.whl"},
		names(t, doc, linux, Selection{}))
	require.Equal(t, []string{
		"built-1.0-10-py2.py3-none-any.whl", "dev-1.0-py3-none-any.whl",
		"fast-1.0-cp39-abi3-manylinux_2_28_x86_64.whl", "web-1.0-py3-none-any.whl",
	},
		names(t, doc, target(t, "3.10", "manylinux_2_28_x86_64"), Selection{Extras: []string{"Web"}, Groups: []string{"dev"}}))
	require.Equal(t, []string{"built-1.0-10-py2.py3-none-any.whl", "fast-1.0-py3-none-any.whl", "windows_only-1.0-py3-none-any.whl"},
		names(t, doc, target(t, "3.11", "win_amd64"), Selection{}))
	l, err := Parse([]byte(doc))
	require.NoError(t, err)
	require.Equal(t, "3.10", l.DefaultPython())
	_, err = l.Select(linux, Selection{Extras: []string{"nope"}})
	require.ErrorIs(t, err, ErrLock)
	_, err = l.Select(target(t, "3.9", DefaultPlatform), Selection{})
	require.ErrorContains(t, err, ">=3.10")
	require.ErrorContains(t, err, "3.9")
}

// TestRefused holds, for each thing that is wrong with a lock, a word that the message must have.
func TestRefused(t *testing.T) {
	sha := strings.Repeat("ab", 32)
	for _, test := range []struct{ doc, want string }{
		{"x = ", "line 1"},
		{"x = 1", "lock-version"},
		{"lock-version = \"2.0\"", "2.0"},
		{head + "[[packages]]\nversion = \"1\"", "name"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nmarker = \"bogus\"", "bogus"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nvcs = { type = \"git\" }", "version control"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [" + wheel("a-1-cp39-cp39-win32.whl") + "]\nsdist = { name = \"a-1.tar.gz\" }", "a-1.tar.gz"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nsdist = { url = \"http://index.test/a-1.tar.gz\" }", "a-1.tar.gz"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\narchive = { url = \"http://index.test/a-1.zip\", hashes = { sha256 = \"" + sha + "\" } }", "a-1.zip"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [{ name = \"a-1-py3-none-any.whl\", url = \"x\" }]", "hash"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [{ name = \"a-1-py3-none-any.whl\", hashes = { sha256 = \"" + sha + "\" } }]", "neither url nor path"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [" + wheel("b-1-py3-none-any.whl") + "]", "another project"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [" + wheel("a.whl") + "]", "file name"},
		{head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nrequires-python = \">=3.12\"\nwheels = [" + wheel("a-1-py3-none-any.whl") + "]", ">=3.12"},
		{head + "environments = [\"sys_platform == 'win32'\"]", "win32"},
		{head + strings.Repeat("[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = ["+wheel("a-1-py3-none-any.whl")+"]\n", 2), "twice"},
	} {
		l, err := Parse([]byte(test.doc))
		if err == nil {
			_, err = l.Select(target(t, "3.11", DefaultPlatform), Selection{})
		}
		require.ErrorIs(t, err, ErrLock, test.doc)
		require.ErrorContains(t, err, test.want)
	}
}

func TestNoWheelNamesEverything(t *testing.T) {
	l, err := Parse([]byte(head + "[[packages]]\nname = \"Some.Thing\"\nversion = \"1.5\"\nwheels = [" +
		wheel("some_thing-1.5-cp39-cp39-win32.whl") + "]\nsdist = { name = \"some_thing-1.5.tar.gz\" }"))
	require.NoError(t, err)
	_, err = l.Select(target(t, "3.11", DefaultPlatform), Selection{})
	for _, want := range []string{"some-thing 1.5", "CPython 3.11", "manylinux_2_28_x86_64", "some_thing-1.5-cp39-cp39-win32.whl", "some_thing-1.5.tar.gz"} {
		require.ErrorContains(t, err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(head + "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [" + wheel("a-1-py3-none-any.whl") + "]")
	f.Fuzz(func(t *testing.T, doc string) {
		if l, err := Parse([]byte(doc)); err == nil {
			_, _ = l.Select(Target{Python: "3.11", Platform: DefaultPlatform}, Selection{})
		}
	})
}
