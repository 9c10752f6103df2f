package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
)

// certificates serves TLS with files that may change while it runs.
type certificates struct {
	cert, key, ca string
	sum           [sha256.Size]byte
	now           atomic.Pointer[tls.Config]
}

func openCertificates(cert, key, ca string) (*certificates, error) {
	c := &certificates{cert: cert, key: key, ca: ca}
	_, err := c.reload()
	return c, err
}

// reload reads the files, and reports whether they had changed. If they make no sense, those from before still hold.
func (c *certificates) reload() (changed bool, err error) {
	h := sha256.New()
	var parts [3][]byte
	for i, path := range []string{c.cert, c.key, c.ca} {
		if path == "" {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return false, fmt.Errorf("TLS: %w", err)
		}
		parts[i] = b
		fmt.Fprintf(h, "%d ", len(b))
		h.Write(b)
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	if sum == c.sum && c.now.Load() != nil {
		return false, nil
	}
	pair, err := tls.X509KeyPair(parts[0], parts[1])
	if err != nil {
		return false, fmt.Errorf("TLS: %s and %s: %w", c.cert, c.key, err)
	}
	next := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if c.ca != "" {
		next.ClientCAs = x509.NewCertPool()
		if !next.ClientCAs.AppendCertsFromPEM(parts[2]) {
			return false, fmt.Errorf("TLS: %s: %w", c.ca, errors.New("no certificate in PEM form"))
		}
		// Who shows none may have a token instead; package auth refuses those who have neither.
		next.ClientAuth = tls.VerifyClientCertIfGiven
	}
	c.sum = sum
	c.now.Store(next)
	return true, nil
}

// config returns a configuration that follows the files, for a server that speaks the given protocols.
func (c *certificates) config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := c.now.Load().Clone()
			now.NextProtos = protocols
			return now, nil
		},
	}
}
