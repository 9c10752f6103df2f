// Package open turns a cache's address into the cache: one flag or variable says where it is.
package open

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/disk"
	"github.com/pexpress/pexpress/cache/lazy"
	"github.com/pexpress/pexpress/cache/local"
	"github.com/pexpress/pexpress/cache/remote"
)

// MaxBytes is the size above which a cache on disk drops what was used longest ago. 'pexpress cache gc' makes it smaller.
const MaxBytes = 50 << 30

// Open returns the cache at an address. Whoever opens it closes it.
//
//	a directory's path or file:///directory     package disk
//	grpc://host:port[/instance]                 package remote
//	grpcs://host:port[/instance]                with TLS and credentials, see credentials.go
//	unix:///socket, unix:/socket                package remote
//	http://host:port[/instance], https://…      package httpcache: Bazel's HTTP protocol
//	s3://bucket[/prefix][?instance=name]        package s3, without a server between
func Open(ctx context.Context, address string) (cache.CAS, cache.ActionCache, io.Closer, error) {
	if dir, ok := Dir(address); ok {
		return openDisk(dir)
	}
	if err := Check(address); err != nil {
		return nil, nil, nil, err
	}
	switch scheme, _, _ := strings.Cut(address, "://"); scheme {
	case "s3":
		return openBucket(ctx, address)
	case "http", "https":
		return openHTTP(address)
	}
	opts, err := credentialsFor(address)
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := remote.Dial(ctx, address, opts...)
	if err != nil {
		return nil, nil, nil, err
	}
	return c, c, c, nil
}

// Forms says what addresses look like, for help texts.
const Forms = "a directory, file:///dir, grpc://host:port, grpcs://host:port, unix:///socket, https://host or s3://bucket/prefix"

// Check refuses an address that Open cannot open, whatever the state of what it names.
func Check(address string) error {
	if dir, ok := Dir(address); ok && dir != "" {
		return nil
	}
	if path, ok := local.Socket(address); ok && path != "" {
		return nil
	}
	switch scheme, rest, _ := strings.Cut(address, "://"); {
	case rest == "":
	case scheme == "grpc", scheme == "grpcs", scheme == "http", scheme == "https":
		return nil
	case scheme == "s3":
		_, _, err := parseBucket(address)
		return err
	}
	return fmt.Errorf("cache address %q: use %s", address, Forms)
}

var withScheme = lazy.Regexp(`^[A-Za-z][A-Za-z0-9+.-]*:`)

// Dir returns the directory that an address names; false if it names none.
func Dir(address string) (string, bool) {
	if path, ok := strings.CutPrefix(address, "file://"); ok {
		return path, filepath.IsAbs(path)
	}
	return address, !withScheme().MatchString(address) && !hostPort().MatchString(address)
}

// hostPort is what is left of an address without its scheme: meant as a server, and no directory's name.
var hostPort = lazy.Regexp(`^[0-9A-Za-z.\[\]:-]+:[0-9]+(/[^/]*)?$`)

func openDisk(dir string) (cache.CAS, cache.ActionCache, io.Closer, error) {
	if dir == "" {
		return nil, nil, nil, fmt.Errorf("cache address names no directory")
	}
	s, err := disk.Open(dir, disk.Options{MaxBytes: MaxBytes})
	if err != nil {
		return nil, nil, nil, err
	}
	return s, s, s, nil
}
