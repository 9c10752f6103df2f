package venv

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
)

func TestHostileWheels(t *testing.T) {
	const info, data = "alpha_pkg-1.0.dist-info/", "alpha_pkg-1.0.data/"
	wrong := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for name, c := range map[string]struct {
		filename string
		files    []file
		want     string
	}{
		"parent":              {files: []file{{name: "a/../../x.py"}}, want: `part ".."`},
		"parent in data":      {files: []file{{name: data + "data/../../x"}}, want: `part ".."`},
		"dot":                 {files: []file{{name: "a/./x.py"}}, want: `part "."`},
		"empty part":          {files: []file{{name: "a//x.py"}}, want: `part ""`},
		"absolute":            {files: []file{{name: "/etc/x"}}, want: "absolute"},
		"backslash":           {files: []file{{name: `a\..\x.py`}}, want: "backslash"},
		"drive":               {files: []file{{name: "C:x.py"}}, want: "drive"},
		"NUL":                 {files: []file{{name: "a\x00b.py"}}, want: "NUL"},
		"not UTF-8":           {files: []file{{name: "a\xffb.py"}}, want: "UTF-8"},
		"symlink":             {files: []file{{name: "link", content: "/etc", mode: fs.ModeSymlink | 0o777}}, want: "symlink"},
		"device":              {files: []file{{name: "null", mode: fs.ModeDevice | 0o666}}, want: "neither a file nor a directory"},
		"twice":               {files: []file{{name: "a.py"}, {name: "a.py", content: "x"}}, want: "twice"},
		"twice by schemes":    {files: []file{{name: "a.py"}, {name: data + "purelib/a.py"}}, want: "twice"},
		"file, directory":     {files: []file{{name: "a"}, {name: "a/b.py"}}, want: "a file and a directory"},
		"directory, file":     {files: []file{{name: "a/b.py"}, {name: "a"}}, want: "a file and a directory"},
		"scheme as a file":    {files: []file{{name: data + "scripts"}}, want: "a file and a directory"},
		"unknown scheme":      {files: []file{{name: data + "stdlib/os.py"}}, want: `"stdlib"`},
		"script below":        {files: []file{{name: data + "scripts/a/b"}}, want: "a script in a directory"},
		"bomb":                {files: []file{{name: "zeros", content: strings.Repeat("\x00", 80<<20)}}, want: "bytes would become"},
		"declared too much":   {files: []file{{name: "large", content: "x", size: 9 << 30}}, want: "exceed"},
		"smaller than it is":  {files: []file{{name: "a.py", content: "four", size: 2}}, want: `"a.py"`},
		"larger than it is":   {files: []file{{name: "a.py", content: "four", size: 9}}, want: `"a.py"`},
		"other content":       {files: []file{{name: "a.py", content: "x", record: "a.py,sha256=" + wrong + ",1"}}, want: "not the content"},
		"other size":          {files: []file{{name: "a.py", content: "x", record: "a.py,,2"}}, want: "RECORD says 2"},
		"weak hash":           {files: []file{{name: "a.py", record: "a.py,md5=" + wrong + ",0"}}, want: "not accepted"},
		"short hash":          {files: []file{{name: "a.py", record: "a.py,sha256=short,0"}}, want: "not a hash"},
		"not in RECORD":       {files: []file{{name: "a.py", absent: true}}, want: "RECORD does not list it"},
		"RECORD twice":        {files: []file{{name: "a.py"}, {name: "b.py", record: "a.py,,7"}}, want: "lists a.py twice"},
		"RECORD malformed":    {files: []file{{name: info + "RECORD", content: "a,b\n"}}, want: "RECORD"},
		"Wheel-Version":       {files: []file{{name: info + "WHEEL", content: "Wheel-Version: 2.0\n"}}, want: `Wheel-Version "2.0"`},
		"no Wheel-Version":    {files: []file{{name: info + "WHEEL", content: "Tag: x\n"}}, want: "no Wheel-Version"},
		"two dist-infos":      {files: []file{{name: "b-1.dist-info/METADATA"}}, want: "a second .dist-info"},
		"other project":       {filename: "beta-1.0-py3-none-any.whl", want: "not the name and version"},
		"other version":       {filename: "alpha_pkg-1.1-py3-none-any.whl", want: "not the name and version"},
		"bad script":          {files: []file{{name: info + "entry_points.txt", content: "[console_scripts]\nx = a;b:c\n"}}, want: "not a script"},
		"script without call": {files: []file{{name: info + "entry_points.txt", content: "[console_scripts]\nx = a\n"}}, want: "not a script"},
		"script elsewhere":    {files: []file{{name: info + "entry_points.txt", content: "[console_scripts]\n../x = a:b\n"}}, want: "not the name of a script"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			w := h.wheel(alphaFile, c.files...)
			if c.filename != "" {
				w.Filename = c.filename
			}
			h.requireRefused(w, c.want)
		})
	}
}

// requireRefused checks that nothing is left of the wheel.
func (h *host) requireRefused(w Wheel, want string) {
	t := h.t
	t.Helper()
	_, err := h.Env(t.Context(), key("tree"), []Wheel{w}, h.py, h.cas)
	require.ErrorIs(t, err, ErrWheel)
	require.ErrorContains(t, err, w.Filename)
	require.ErrorContains(t, err, want)
	for _, dir := range []string{"wheels", "envs"} {
		require.Empty(t, h.list(dir))
	}
	above, err := os.ReadDir(filepath.Dir(h.dir))
	require.NoError(t, err)
	for _, e := range above {
		require.True(t, e.IsDir(), e.Name())
	}
}

func TestNoWheels(t *testing.T) {
	h := newHost(t)
	put := func(b []byte) Wheel {
		d, err := cache.PutBlob(t.Context(), h.cas, b)
		require.NoError(t, err)
		return Wheel{alphaFile, d}
	}
	whole := makeWheel(t, alphaFile, file{name: "a.py", content: strings.Repeat("content", 100)})
	h.requireRefused(put([]byte("no zip")), "list of members")
	h.requireRefused(put(whole[:len(whole)/2]), "list of members")
	h.requireRefused(put(makeZip(t, nil)), "no .dist-info")
	h.requireRefused(put(makeZip(t, []file{{name: "alpha_pkg-1.0.dist-info/WHEEL", content: "Wheel-Version: 1.0"}})), "missing")
	h.requireRefused(put(makeZip(t, []file{
		{name: "alpha_pkg-1.0.dist-info/WHEEL", content: "Wheel-Version: 1.0"}, {name: "alpha_pkg-1.0.dist-info/METADATA"},
	})), `RECORD": missing`)
	encrypted := bytes.Clone(whole)
	i := bytes.Index(encrypted, []byte("PK\x01\x02"))
	encrypted[i+8] |= 1
	h.requireRefused(put(encrypted), "encrypted")
	for _, filename := range []string{"", "a.zip", "alpha-1.whl", "../alpha-1-py3-none-any.whl", "a-1-py3-none-any/x.whl", "a--py3-none-any.whl"} {
		_, err := h.Env(t.Context(), key("tree"), []Wheel{{filename, put(whole).Digest}}, h.py, h.cas)
		require.ErrorIs(t, err, ErrWheel, filename)
	}
}

func TestLimitOfMembers(t *testing.T) {
	b := makeWheel(t, alphaFile, file{name: "a.py"}, file{name: "b.py"})
	n, err := parseFilename(alphaFile)
	require.NoError(t, err)
	lim := defaultLimits()
	lim.members = 5
	_, err = n.members(bytes.NewReader(b), int64(len(b)), lim)
	require.NoError(t, err)
	lim.members = 4
	_, err = n.members(bytes.NewReader(b), int64(len(b)), lim)
	require.ErrorContains(t, err, "more than 4 members")
	lim.directory = 100
	_, err = n.members(bytes.NewReader(b), int64(len(b)), lim)
	require.ErrorContains(t, err, "list of members")
}

func TestSameVersion(t *testing.T) {
	for _, c := range [][2]string{{"1.0", "1.0"}, {"1.0", "1.0.0"}, {"1.0+cu118", "1.0_cu118"}, {"1.0_1", "1.0.post1"}, {"1.0RC1", "1.0rc1"}} {
		require.True(t, sameVersion(c[0], c[1]), "%s %s", c[0], c[1])
	}
	for _, c := range [][2]string{{"1.0", "1.1"}, {"1.0", "1.0rc1"}, {"x", "y"}} {
		require.False(t, sameVersion(c[0], c[1]), "%s %s", c[0], c[1])
	}
}
