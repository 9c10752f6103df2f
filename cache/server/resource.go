package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pexpress/pexpress/cache/digest"
)

// keywords end an instance name, as REAPI says: a name that holds one of them is not an instance's.
var keywords = []string{"blobs", "uploads", "compressed-blobs", "actions", "actionResults", "operations", "capabilities"}

// resource is what a ByteStream resource name says.
type resource struct {
	instance string
	digest   digest.Digest
	zstd     bool // the bytes travel compressed
}

// cutInstance splits a resource name before its first keyword.
func cutInstance(name string) (instance string, parts []string) {
	parts = strings.Split(name, "/")
	i := slices.IndexFunc(parts, func(p string) bool { return slices.Contains(keywords, p) })
	if i < 0 {
		return "", nil
	}
	return strings.Join(parts[:i], "/"), parts[i:]
}

// readName parses [INSTANCE/]blobs/[FUNCTION/]HASH/SIZE or [INSTANCE/]compressed-blobs/zstd/[FUNCTION/]HASH/SIZE.
func readName(name string) (resource, error) {
	instance, parts := cutInstance(name)
	r, rest, err := blobName(parts)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: something follows the size", digest.ErrInvalid)
	}
	if err != nil {
		return resource{}, fmt.Errorf("resource %.300q is not [INSTANCE/]blobs/HASH/SIZE: %w", name, err)
	}
	r.instance = instance
	return r, nil
}

// writeName parses [INSTANCE/]uploads/UUID/ with what readName reads after it, and perhaps more after the size: that is
// the client's own.
func writeName(name string) (resource, error) {
	instance, parts := cutInstance(name)
	var r resource
	err := fmt.Errorf("%w: no upload", digest.ErrInvalid)
	if len(parts) > 2 && parts[0] == "uploads" && parts[1] != "" {
		r, _, err = blobName(parts[2:])
	}
	if err != nil {
		return resource{}, fmt.Errorf("resource %.300q is not [INSTANCE/]uploads/UUID/blobs/HASH/SIZE: %w", name, err)
	}
	r.instance = instance
	return r, nil
}

// others are the digest functions that REAPI knows and we do not.
var others = []string{"sha1", "md5", "vso", "sha384", "sha512", "murmur3", "sha256tree", "gitsha1"}

// blobName reads blobs/[FUNCTION/]HASH/SIZE, or the same after compressed-blobs/zstd, and returns the segments after it.
func blobName(parts []string) (r resource, rest []string, err error) {
	switch {
	case len(parts) > 1 && parts[0] == "compressed-blobs":
		if parts[1] != "zstd" {
			return r, nil, fmt.Errorf("%w: compressor %.40q is not supported, use zstd or blobs", digest.ErrInvalid, parts[1])
		}
		r.zstd = true
		parts = parts[2:]
	case len(parts) > 2 && parts[0] == "blobs":
		parts = parts[1:]
	default:
		return r, nil, fmt.Errorf("%w: no digest", digest.ErrInvalid)
	}
	fn := digest.SHA256
	if len(parts) > 0 {
		if f, ok := digest.FunctionNamed(parts[0]); ok {
			fn, parts = f, parts[1:]
		} else if slices.Contains(others, parts[0]) {
			return resource{}, nil, fmt.Errorf("%w: digest function %s is not supported, use sha256 or blake3", digest.ErrInvalid, parts[0])
		}
	}
	if len(parts) < 2 {
		return resource{}, nil, fmt.Errorf("%w: no size", digest.ErrInvalid)
	}
	d, err := digest.Parse(parts[0] + "/" + parts[1])
	if err == nil && fn != digest.SHA256 {
		d = fn.FromSum(d.Sum(), d.Size())
	}
	if err != nil {
		return resource{}, nil, err
	}
	r.digest = d
	return r, parts[2:], nil
}
