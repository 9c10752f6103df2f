package auth

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// Certificates has a server speak TLS with files that may change while it runs: certificates are renewed.
type Certificates struct {
	cert, key, ca string
	now           atomic.Pointer[tls.Config]

	mu  sync.Mutex // one reads at a time
	sum [sha256.Size]byte
}

// OpenCertificates reads the server's certificate chain and its key, and the authorities whose client certificates are
// taken; none are if ca is empty.
func OpenCertificates(cert, key, ca string) (*Certificates, error) {
	c := &Certificates{cert: cert, key: key, ca: ca}
	_, err := c.Reload()
	return c, err
}

// Reload reads the files again, and reports whether they had changed. If they make no sense, those from before still hold.
func (c *Certificates) Reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
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
		// Who shows none may have a token instead; an Authenticator refuses those who have neither.
		next.ClientAuth = tls.VerifyClientCertIfGiven
		// A session that is resumed would bring a certificate in that an authority taken out of the file has signed.
		next.SessionTicketsDisabled = true
	}
	c.sum = sum
	c.now.Store(next)
	return true, nil
}

// TLS returns a configuration that follows the files, for a server that speaks these protocols within TLS.
func (c *Certificates) TLS(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := c.now.Load().Clone()
			now.NextProtos = protocols
			return now, nil
		},
	}
}
