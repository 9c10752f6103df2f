package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/local"
)

// check refuses configurations that make no sense, or give away more than they say.
func (c *config) check() error {
	if err := c.checkPaths(); err != nil {
		return configError{err}
	}
	if err := errors.Join(c.checkStorage(), c.checkTrust(), c.checkAddresses()); err != nil {
		return configError{err}
	}
	return nil
}

// checkPaths refuses what only a shell would take for a home directory.
func (c *config) checkPaths() error {
	paths := []struct{ key, path string }{
		{"disk", c.Disk},
		{"tls-cert", c.TLSCert},
		{"tls-key", c.TLSKey},
		{"tls-client-ca", c.TLSClientCA},
		{"tokens", c.Tokens},
		{"listen", strings.TrimPrefix(c.Listen, "unix://")},
		{"http-listen", strings.TrimPrefix(c.HTTPListen, "unix://")},
	}
	for _, p := range paths {
		if strings.HasPrefix(p.path, "~") {
			return fmt.Errorf("%s %s: write the path out, only a shell knows what ~ means", p.key, p.path)
		}
	}
	return nil
}

func (c *config) checkStorage() error {
	switch {
	case c.Disk == "" && c.S3 == "":
		return errors.New("say where the cache is kept: --disk DIR, --s3 s3://BUCKET/PREFIX, or both")
	case c.WriteBack && (c.S3 == "" || c.Disk == ""):
		return errors.New("--write-back needs --disk for its journal, and --s3 to bring it to")
	case c.Disk != "" && c.DiskSize < 64<<20:
		return fmt.Errorf("--disk-size %s is less than the 64MiB that a disk tier needs", &c.DiskSize)
	case c.Memory < 16<<20:
		return fmt.Errorf("--max-memory %s is less than the 16MiB that a few requests need", &c.Memory)
	case c.Connections < 1:
		return errors.New("--max-connections must be 1 or more")
	case c.Retention < durationValue(time.Minute):
		return fmt.Errorf("--retention %s is shorter than a build: say a minute or more", &c.Retention)
	}
	if c.S3 != "" {
		if _, _, err := bucketOf(c.S3); err != nil {
			return err
		}
	}
	return nil
}

// bucketOf splits s3://BUCKET/PREFIX.
func bucketOf(address string) (bucket, prefix string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.RawQuery != "" || u.User != nil || u.Port() != "" {
		return "", "", fmt.Errorf("--s3 %s: write s3://BUCKET or s3://BUCKET/PREFIX", address)
	}
	return u.Host, strings.Trim(u.Path, "/"), nil
}

func (c *config) checkTrust() error {
	var level slog.Level
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key go together")
	case c.TLSClientCA != "" && c.TLSCert == "":
		return errors.New("--tls-client-ca needs --tls-cert and --tls-key: certificates are shown within TLS")
	case c.authenticated() && len(c.Instances) == 0:
		return errors.New("callers can say who they are, but no instance lets anyone in: add an [[instance]] to the configuration file, with read, write-cas and write-actions")
	case !c.authenticated() && c.grants():
		return errors.New("an [[instance]] lists principals, but nothing tells who a caller is: add --tokens, --tls-client-ca or an [[oidc]]")
	}
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return fmt.Errorf("--log-level %s: use debug, info, warn or error", c.LogLevel)
	}
	return c.checkPrincipals()
}

// grants reports whether an instance names someone.
func (c *config) grants() bool {
	for _, i := range c.Instances {
		if len(i.Read)+len(i.WriteCAS)+len(i.WriteActions) > 0 {
			return true
		}
	}
	return false
}

// anyoneWrites reports whether callers who show nothing may write.
func (c *config) anyoneWrites() bool {
	if !c.authenticated() {
		return true
	}
	for _, i := range c.Instances {
		if auth.Patterns(i.WriteCAS).Match(auth.Anonymous) || auth.Patterns(i.WriteActions).Match(auth.Anonymous) {
			return true
		}
	}
	return false
}

// checkAddresses keeps the server closed to the network unless it knows whom it serves and nobody listens in.
func (c *config) checkAddresses() error {
	for flag, address := range map[string]string{"--listen": c.Listen, "--http-listen": c.HTTPListen} {
		if address == "none" && flag == "--http-listen" {
			continue
		}
		open, err := reachable(address)
		switch {
		case err != nil:
			return fmt.Errorf("%s %s: %w", flag, address, err)
		case open && c.anyoneWrites() && !c.AnyoneMay:
			return fmt.Errorf("%s %s can be reached from other machines, and anyone there could write what others will run: set up --tokens, --tls-client-ca or an [[oidc]] and name in each [[instance]] who may write, use a loopback address or a unix socket, or say --insecure-anyone-can-read-and-write", flag, address)
		case open && c.TLSCert == "" && !c.InTheClear:
			return fmt.Errorf("%s %s can be reached from other machines, and without TLS tokens and blobs cross the network in the clear: add --tls-cert and --tls-key, or say --insecure-tokens-and-blobs-in-the-clear", flag, address)
		}
	}
	if c.Pprof != "" {
		if open, err := reachable(c.Pprof); err != nil || open {
			return fmt.Errorf("--pprof %s: it shows this process's memory: use a loopback address such as 127.0.0.1:6060", c.Pprof)
		}
	}
	return nil
}

// reachable reports whether other machines, or other users of this one, can connect to an address that is not loopback.
func reachable(address string) (bool, error) {
	if path, ok := local.Socket(address); ok {
		if !strings.HasPrefix(path, "/") {
			return false, errors.New("write unix:///path/of/socket")
		}
		return false, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false, fmt.Errorf("%w: use host:port or unix:///socket", err)
	}
	return !local.IsHost(host), nil
}
