package access

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync/atomic"
)

// certificates serves TLS with files that are read at each handshake: certificates are renewed while a server runs.
type certificates struct {
	cert, key, ca string
	protocols     []string // that are spoken within TLS
	warn          func(error)
	last          atomic.Pointer[tls.Config]
}

func openCertificates(cert, key, ca string, protocols []string, warn func(error)) (*certificates, error) {
	c := &certificates{cert: cert, key: key, ca: ca, protocols: protocols, warn: warn}
	now, err := c.read()
	if err != nil {
		return nil, err
	}
	c.last.Store(now)
	return c, nil
}

func (c *certificates) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("TLS: %s and %s: %w", c.cert, c.key, err)
	}
	now := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: c.protocols}
	if c.ca == "" {
		return now, nil
	}
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	now.ClientCAs = x509.NewCertPool()
	if !now.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("TLS: %s holds no certificate in PEM form", c.ca)
	}
	// Who shows none may have a token instead; package auth refuses those who have neither.
	now.ClientAuth = tls.VerifyClientCertIfGiven
	// A session that is resumed would bring a certificate in that an authority taken out of the file has signed.
	now.SessionTicketsDisabled = true
	return now, nil
}

// config returns a configuration that follows the files. While they make no sense, those from before hold.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: c.protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now, err := c.read()
			if err != nil {
				c.warn(err)
				return c.last.Load(), nil
			}
			c.last.Store(now)
			return now, nil
		},
	}
}
