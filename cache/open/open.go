// Package open turns a cache's address into the cache: one flag or variable says where it is.
package open

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/cache/remote"
)

// Open returns the cache at an address: a directory's path or file:///directory (package disk), grpc://host:port[/instance],
// grpcs://… with TLS, or unix:///socket (package remote). Whoever opens it closes it.
func Open(ctx context.Context, address string) (cache.CAS, cache.ActionCache, io.Closer, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	switch {
	case !ok:
		return openDisk(address)
	case scheme == "file":
		return openDisk(rest)
	case scheme == "grpc", scheme == "grpcs", scheme == "unix":
		c, err := remote.Dial(ctx, address)
		if err != nil {
			return nil, nil, nil, err
		}
		return c, c, c, nil
	}
	return nil, nil, nil, fmt.Errorf("cache address %q: use a directory, file:///dir, grpc://host:port, grpcs://host:port or unix:///socket", address)
}

func openDisk(dir string) (cache.CAS, cache.ActionCache, io.Closer, error) {
	if dir == "" {
		return nil, nil, nil, fmt.Errorf("cache address names no directory")
	}
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	return s, s, s, nil
}
