package sbom

import (
	"archive/zip"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"path"
	"strings"
	"unicode"

	"github.com/CycloneDX/cyclonedx-go"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
)

// maxMetadata bounds the METADATA that is read: it carries a project's description.
const maxMetadata = 4 << 20

// licences returns what a wheel declares, nil if it declares nothing or is not in the cache.
func licences(ctx context.Context, cas cache.CAS, d digest.Digest) (*cyclonedx.Licenses, error) {
	rc, err := cas.Get(ctx, d)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	f, err := os.CreateTemp("", "pexpress-wheel")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	n, err := io.Copy(f, rc)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(f, n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotDeps, err)
	}
	for _, m := range z.File {
		if dir, file := path.Split(m.Name); file == "METADATA" && strings.HasSuffix(dir, ".dist-info/") && strings.Count(dir, "/") == 1 {
			return declared(m)
		}
	}
	return nil, nil
}

// declared returns what a METADATA says: an SPDX expression (PEP 639) or, of older wheels, classifiers or a free text.
func declared(m *zip.File) (*cyclonedx.Licenses, error) {
	rc, err := m.Open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	defer rc.Close()
	// A header that breaks the rules ends the reading: what stands before it counts, as for pip.
	header, err := textproto.NewReader(bufio.NewReader(io.LimitReader(rc, maxMetadata))).ReadMIMEHeader()
	var malformed textproto.ProtocolError
	if err != nil && !errors.Is(err, io.EOF) && !errors.As(err, &malformed) {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	if e := header.Get("License-Expression"); plain(e) {
		return &cyclonedx.Licenses{{Expression: e}}, nil
	}
	var all cyclonedx.Licenses
	for _, c := range header.Values("Classifier") {
		if name, ok := strings.CutPrefix(c, "License :: "); ok && plain(name) && name != "OSI Approved" {
			all = append(all, named(strings.TrimPrefix(name, "OSI Approved :: ")))
		}
	}
	if text := header.Get("License"); len(all) == 0 && plain(text) && text != "UNKNOWN" {
		all = append(all, named(text))
	}
	if len(all) == 0 {
		return nil, nil
	}
	return &all, nil
}

func named(name string) cyclonedx.LicenseChoice {
	return cyclonedx.LicenseChoice{License: &cyclonedx.License{Name: name}}
}

// plain reports whether a text is a licence's name: some wheels have all of a licence's text in the field.
func plain(s string) bool {
	return s != "" && len(s) <= 100 && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
