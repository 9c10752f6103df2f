package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pexpress/pexpress/cache/local"
)

// secure begins the addresses that are reached with TLS.
const secure = "grpcs://"

// Secure reports whether an address is reached with TLS.
func Secure(addr string) bool { return strings.HasPrefix(addr, secure) }

// The variables that hold what a codeserver is shown.
const (
	tokenVariable = "PEXPRESS_CODESERVER_TOKEN"
	certVariable  = "PEXPRESS_CODESERVER_CERT"
	keyVariable   = "PEXPRESS_CODESERVER_KEY"
	caVariable    = "PEXPRESS_CODESERVER_CA"
)

// Credentials are what a codeserver is shown, and how it is known itself.
type Credentials struct {
	// Token is a bearer's.
	Token string
	// Cert and Key are the files of a client certificate.
	Cert, Key string
	// CA is the file of the authorities that the server's certificate may be of, in place of the system's.
	CA string
}

// FromEnvironment returns the credentials that $PEXPRESS_CODESERVER_TOKEN, _CERT, _KEY and _CA say.
func FromEnvironment() Credentials {
	return Credentials{
		Token: os.Getenv(tokenVariable), Cert: os.Getenv(certVariable), Key: os.Getenv(keyVariable), CA: os.Getenv(caVariable),
	}
}

// options returns what goes with a connection. A token is kept from networks that could read it.
func (c Credentials) options(addr, target string) ([]grpc.DialOption, error) {
	if !strings.HasPrefix(addr, secure) {
		if _, socket := local.Socket(addr); c.Token != "" && !socket && !local.IsHost(target) {
			return nil, fmt.Errorf("%s would cross the network in the clear: use %s%s, or unset it", tokenVariable, secure, target)
		}
		return append(c.bearer(false), grpc.WithTransportCredentials(insecure.NewCredentials())), nil
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	config, err := c.tls(host)
	if err != nil {
		return nil, err
	}
	return append(c.bearer(true), grpc.WithTransportCredentials(credentials.NewTLS(config))), nil
}

func (c Credentials) tls(host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if (c.Cert == "") != (c.Key == "") {
		return nil, fmt.Errorf("%s and %s go together", certVariable, keyVariable)
	}
	if c.Cert != "" {
		if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", certVariable, keyVariable, err)
		}
		// Read at each handshake: short-lived certificates are replaced while a program runs.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
			return &pair, err
		}
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", caVariable, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s holds no certificate in PEM form", caVariable, c.CA)
		}
	}
	return config, nil
}

func (c Credentials) bearer(secure bool) []grpc.DialOption {
	if c.Token == "" {
		return nil
	}
	return []grpc.DialOption{grpc.WithPerRPCCredentials(bearer{c.Token, secure})}
}

// bearer sends a token with each call.
type bearer struct {
	token  string
	secure bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return b.secure }
