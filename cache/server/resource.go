package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
)

// keywords end an instance name, as REAPI says: a name that holds one of them is not an instance's.
var keywords = []string{"blobs", "uploads", "compressed-blobs"}

// cutInstance returns the segments of a resource name from the first keyword on.
func cutInstance(name string) []string {
	parts := strings.Split(name, "/")
	i := slices.IndexFunc(parts, func(p string) bool { return slices.Contains(keywords, p) })
	if i < 0 {
		return nil
	}
	return parts[i:]
}

// readName returns the digest of a ByteStream read resource: [INSTANCE/]blobs/[FUNCTION/]HASH/SIZE.
func readName(name string) (digest.Digest, error) {
	d, rest, err := blobName(cutInstance(name))
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: something follows the size", digest.ErrInvalid)
	}
	if err != nil {
		return digest.Digest{}, fmt.Errorf("resource %.300q is not [INSTANCE/]blobs/HASH/SIZE: %w", name, err)
	}
	return d, nil
}

// writeName returns the digest of a ByteStream write resource: [INSTANCE/]uploads/UUID/blobs/[FUNCTION/]HASH/SIZE[/…].
// What follows the size is the client's own.
func writeName(name string) (digest.Digest, error) {
	parts := cutInstance(name)
	var d digest.Digest
	err := fmt.Errorf("%w: no upload", digest.ErrInvalid)
	if len(parts) > 2 && parts[0] == "uploads" && parts[1] != "" {
		d, _, err = blobName(parts[2:])
	}
	if err != nil {
		return digest.Digest{}, fmt.Errorf("resource %.300q is not [INSTANCE/]uploads/UUID/blobs/HASH/SIZE: %w", name, err)
	}
	return d, nil
}

// blobName reads blobs/[FUNCTION/]HASH/SIZE and returns the segments after it.
func blobName(parts []string) (d digest.Digest, rest []string, err error) {
	switch {
	case len(parts) > 0 && parts[0] == "compressed-blobs":
		return d, nil, fmt.Errorf("%w: compressed blobs are not supported, use blobs", digest.ErrInvalid)
	case len(parts) < 3 || parts[0] != "blobs":
		return d, nil, fmt.Errorf("%w: no digest", digest.ErrInvalid)
	}
	parts = parts[1:]
	switch f := parts[0]; f {
	case "sha256":
		parts = parts[1:]
	case "blake3", "sha1", "md5", "vso", "sha384", "sha512", "murmur3", "sha256tree", "gitsha1":
		return d, nil, fmt.Errorf("%w: digest function %s is not supported, use sha256", digest.ErrInvalid, f)
	}
	if len(parts) < 2 {
		return d, nil, fmt.Errorf("%w: no size", digest.ErrInvalid)
	}
	d, err = digest.Parse(parts[0] + "/" + parts[1])
	return d, parts[2:], err
}
