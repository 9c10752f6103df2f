// Package sbom lists what a deps.pex is made of, as a CycloneDX 1.6 document.
//
// The root Directory's digest is all that it takes: wheels stand in the tree byte for byte as they were published, so
// their names, versions and sha256 follow from it. The document follows from the digest as well: it has no time, and its
// serial number is made of the digest.
package sbom

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/plugin/lock"
)

// ErrNotDeps is wrapped by the error for a tree that is no deps.pex.
var ErrNotDeps = errors.New("it is not the tree of a deps.pex")

const (
	wheelDir = ".deps/"
	infoFile = "PEX-INFO"
	maxInfo  = 16 << 20
)

// wheelName is what a wheel's file may be called (PEP 427).
var wheelName = lazy.Regexp(`^([A-Za-z0-9_.]+)-([A-Za-z0-9_.+!]+)(-[0-9][A-Za-z0-9_.]*)?(-[A-Za-z0-9_.]+){3}\.whl$`)

// Write returns the document for the deps.pex whose root Directory has the digest. A licence is what the wheel's METADATA
// declares; of a wheel that the cache lacks it is left out.
func Write(ctx context.Context, cas cache.CAS, deps digest.Digest) ([]byte, error) {
	t, err := merkle.Load(ctx, cas, deps)
	if err != nil {
		return nil, err
	}
	components, err := wheels(ctx, cas, t)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", deps, err)
	}
	runtime, err := runtime(ctx, cas, t)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", deps, err)
	}
	components = append(components, runtime...)
	var refs []string
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	const root = "deps.pex"
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = serial(deps)
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{
		BOMRef: root, Type: cyclonedx.ComponentTypeApplication, Name: root, Version: deps.Hash(),
		Properties: &[]cyclonedx.Property{{Name: "pexpress:deps_root", Value: deps.String()}},
	}}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: root, Dependencies: &refs}}
	var out bytes.Buffer
	e := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false)
	if err := e.EncodeVersion(bom, cyclonedx.SpecVersion1_6); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// serial is a UUID (version 8, RFC 9562) made of the digest.
func serial(d digest.Digest) string {
	sum := d.Sum()
	u := sum[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// wheels returns a component for each wheel, in the order of their files' names.
func wheels(ctx context.Context, cas cache.CAS, t *merkle.Tree) ([]cyclonedx.Component, error) {
	components := []cyclonedx.Component{}
	for path, d := range t.Files() {
		file, ok := strings.CutPrefix(path, wheelDir)
		if !ok {
			continue
		}
		m := wheelName().FindStringSubmatch(file)
		if m == nil {
			return nil, fmt.Errorf("%w: %.200q is not a wheel's file name", ErrNotDeps, file)
		}
		licenses, err := licences(ctx, cas, d)
		if err != nil {
			return nil, fmt.Errorf("wheel %s: %w", file, err)
		}
		name := lock.NormalizeName(m[1])
		// In a file's name '_' stands for the '-' of a version (PEP 427).
		c := pypi(name, strings.ReplaceAll(m[2], "_", "-"), "?file_name="+escape(file))
		c.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: d.Hash()}}
		c.Licenses = licenses
		components = append(components, c)
	}
	return components, nil
}

func pypi(name, version, qualifiers string) cyclonedx.Component {
	purl := "pkg:pypi/" + name + "@" + escape(version) + qualifiers
	return cyclonedx.Component{
		BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: purl,
	}
}

// escape writes what may stand in a wheel's name as package URLs want it.
func escape(s string) string { return strings.NewReplacer("+", "%2B", "!", "%21").Replace(s) }

// runtime returns pex itself, whose runtime every deps.pex carries, by the version in PEX-INFO.
func runtime(ctx context.Context, cas cache.CAS, t *merkle.Tree) ([]cyclonedx.Component, error) {
	for path, d := range t.Files() {
		if path != infoFile {
			continue
		}
		b, err := cache.ReadBlob(ctx, cas, d, maxInfo)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", infoFile, err)
		}
		var info struct {
			BuildProperties struct {
				PexVersion string `json:"pex_version"`
			} `json:"build_properties"`
		}
		if err := json.Unmarshal(b, &info); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrNotDeps, infoFile, err)
		}
		if v := info.BuildProperties.PexVersion; v != "" {
			return []cyclonedx.Component{pypi("pex", v, "")}, nil
		}
		return nil, nil
	}
	return nil, fmt.Errorf("%w: it has no %s", ErrNotDeps, infoFile)
}
