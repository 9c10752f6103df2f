package sbom

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/merkle"
)

const info = `{"build_properties": {"pex_version": "2.100.0"}}`

// wheel returns a wheel with this METADATA.
func wheel(t *testing.T, metadata string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range [][2]string{
		{"dep.py", "x = 1\n"},
		{"dep/vendored-1.dist-info/METADATA", "License: of another\n\n"},
		{"dep-1.dist-info/METADATA", metadata},
	} {
		w, err := z.Create(m[0])
		require.NoError(t, err)
		_, err = w.Write([]byte(m[1]))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return b.Bytes()
}

// tree puts the Directories of a deps.pex into the cache, and those of its files that are to be there.
func tree(t *testing.T, cas cache.CAS, files map[string][]byte, lacks ...string) digest.Digest {
	t.Helper()
	var b merkle.Builder
	for path, content := range files {
		d := digest.FromBytes(content)
		require.NoError(t, b.File(path, d))
		if len(lacks) == 0 || lacks[0] != path {
			require.NoError(t, cas.Put(t.Context(), d, bytes.NewReader(content)))
		}
	}
	built, err := b.Build()
	require.NoError(t, err)
	require.NoError(t, built.Put(t.Context(), cas))
	return built.Root()
}

func decode(t *testing.T, b []byte) *cyclonedx.BOM {
	t.Helper()
	bom := new(cyclonedx.BOM)
	require.NoError(t, cyclonedx.NewBOMDecoder(bytes.NewReader(b), cyclonedx.BOMFileFormatJSON).Decode(bom))
	return bom
}

// TestWrite goes through the whole document, twice: it follows from the digest.
func TestWrite(t *testing.T) {
	spdx := wheel(t, "Name: Typing_Extensions\nLicense-Expression: MIT OR Apache-2.0\nLicense: ignored\n\n")
	gone := wheel(t, "License: nobody can read this\n\n")
	files := map[string][]byte{
		"PEX-INFO": []byte(info), "__main__.py": []byte("x"), ".bootstrap/pex/x.py": []byte("y"),
		".deps/Typing_Extensions-4.1-py3-none-any.whl":              spdx,
		".deps/torch-1!2.0+cu.12-1abc-cp311-cp311-linux_x86_64.whl": gone,
	}
	cas := memory.New()
	root := tree(t, cas, files, ".deps/torch-1!2.0+cu.12-1abc-cp311-cp311-linux_x86_64.whl")
	b, err := Write(t.Context(), cas, root)
	require.NoError(t, err)
	again, err := Write(t.Context(), cas, root)
	require.NoError(t, err)
	require.Equal(t, string(b), string(again))
	const typing, torch, pex = "pkg:pypi/typing-extensions@4.1?file_name=Typing_Extensions-4.1-py3-none-any.whl",
		"pkg:pypi/torch@1%212.0%2Bcu.12?file_name=torch-1%212.0%2Bcu.12-1abc-cp311-cp311-linux_x86_64.whl", "pkg:pypi/pex@2.100.0"
	require.JSONEq(t, `{
		"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"serialNumber": "`+serial(root)+`",
		"metadata": {"component": {"bom-ref": "deps.pex", "type": "application", "name": "deps.pex", "version": "`+root.Hash()+`",
			"properties": [{"name": "pexpress:deps_root", "value": "`+root.String()+`"}]}},
		"components": [
			{"bom-ref": "`+typing+`", "type": "library", "name": "typing-extensions", "version": "4.1", "purl": "`+typing+`",
				"hashes": [{"alg": "SHA-256", "content": "`+digest.FromBytes(spdx).Hash()+`"}],
				"licenses": [{"expression": "MIT OR Apache-2.0"}]},
			{"bom-ref": "`+torch+`", "type": "library", "name": "torch", "version": "1!2.0+cu.12", "purl": "`+torch+`",
				"hashes": [{"alg": "SHA-256", "content": "`+digest.FromBytes(gone).Hash()+`"}]},
			{"bom-ref": "`+pex+`", "type": "library", "name": "pex", "version": "2.100.0", "purl": "`+pex+`"}
		],
		"dependencies": [{"ref": "deps.pex", "dependsOn": ["`+typing+`", "`+torch+`", "`+pex+`"]}]
	}`, string(b))
	require.Regexp(t, `^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, decode(t, b).SerialNumber)
	validate(t, b)
}

// TestLicences goes through what METADATA declares.
func TestLicences(t *testing.T) {
	for metadata, want := range map[string]string{
		"Name: dep\n\nLicense: in the description\n":             `null`,
		"License-Expression: MIT\n\n":                            `[{"expression":"MIT"}]`,
		"License: BSD\n":                                         `[{"license":{"name":"BSD"}}]`,
		"License: UNKNOWN\n\n":                                   `null`,
		"License: The whole\n  text of it\n\n":                   `[{"license":{"name":"The whole text of it"}}]`,
		"License: \x1b[31mred\n\n":                               `null`,
		"Classifier: License :: OSI Approved\nLicense: Zlib\n\n": `[{"license":{"name":"Zlib"}}]`,
		"License: x\nClassifier: License :: OSI Approved :: MIT\nClassifier: License :: Public Domain\nClassifier: Topic :: X\n\n": `[{"license":{"name":"MIT"}},{"license":{"name":"Public Domain"}}]`,
		"License: MIT\nthis is no header\nLicense-Expression: ISC\n\n":                                                             `[{"license":{"name":"MIT"}}]`,
		"\x00\xff": `null`,
		"":         `null`,
	} {
		cas := memory.New()
		root := tree(t, cas, map[string][]byte{"PEX-INFO": []byte(`{}`), ".deps/dep-1-py3-none-any.whl": wheel(t, metadata)})
		b, err := Write(t.Context(), cas, root)
		require.NoError(t, err, "%q", metadata)
		got, err := json.Marshal((*decode(t, b).Components)[0].Licenses)
		require.NoError(t, err)
		require.JSONEq(t, want, string(got), "%q", metadata)
	}
}

// TestNotDeps has trees refused that are something else.
func TestNotDeps(t *testing.T) {
	for want, files := range map[string]map[string][]byte{
		"has no PEX-INFO":         {"app.py": []byte("x")},
		"not a wheel's file name": {"PEX-INFO": []byte("{}"), ".deps/x.whl": []byte("x")},
		"zip":                     {"PEX-INFO": []byte("{}"), ".deps/dep-1-py3-none-any.whl": []byte("x")},
		"unexpected end":          {"PEX-INFO": []byte("{")},
	} {
		cas := memory.New()
		_, err := Write(t.Context(), cas, tree(t, cas, files))
		require.ErrorIs(t, err, ErrNotDeps)
		require.ErrorContains(t, err, want)
	}
	_, err := Write(t.Context(), memory.New(), digest.FromBytes([]byte("nowhere")))
	require.ErrorIs(t, err, cache.ErrNotFound)
}

// validate has CycloneDX's own validator read the document where it is installed (pip install
// 'cyclonedx-python-lib[json-validation]').
func validate(t *testing.T, b []byte) {
	python := os.Getenv("PEXPRESS_TEST_CYCLONEDX")
	if python == "" {
		t.Log("CycloneDX's validator was not run: PEXPRESS_TEST_CYCLONEDX names no Python that has it")
		return
	}
	path := filepath.Join(t.TempDir(), "bom.json")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	out, err := exec.Command(python, "-c", `
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(repr(error) if error else 0)`, path).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
