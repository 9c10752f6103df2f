package open

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/httpcache"
	"github.com/pexpress/pexpress/cache/local"
)

// The variables that hold what a server is shown: a bearer's token, or the files of a client certificate and its key; and
// the file of the authorities that the server's own certificate may be of, in place of the system's.
const (
	tokenVariable = "PEXPRESS_CACHE_TOKEN"
	certVariable  = "PEXPRESS_CACHE_CERT"
	keyVariable   = "PEXPRESS_CACHE_KEY"
	caVariable    = "PEXPRESS_CACHE_CA"
)

// credentialsFor returns what goes with a gRPC connection to address.
func credentialsFor(address string) ([]grpc.DialOption, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("cache address %q: %w", address, err)
	}
	var opts []grpc.DialOption
	if u.Scheme == "grpcs" {
		config, err := tlsConfig()
		if err != nil {
			return nil, fmt.Errorf("cache %s: %w", address, err)
		}
		opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	}
	token, err := tokenFor(u)
	if err != nil {
		return nil, err
	}
	if token != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer{token, u.Scheme == "grpcs"}))
	}
	return opts, nil
}

// tokenFor returns the token to show at u, "" if there is none. It is kept from networks that could read it.
func tokenFor(u *url.URL) (string, error) {
	token := os.Getenv(tokenVariable)
	here := u.Scheme == "unix" || local.IsHost(u.Host)
	if secure := u.Scheme == "grpcs" || u.Scheme == "https"; token != "" && !secure && !here {
		return "", fmt.Errorf("cache %s: %s would cross the network in the clear: use %ss://, or unset it", u.Redacted(), tokenVariable, u.Scheme)
	}
	return token, nil
}

// openHTTP returns a client of Bazel's HTTP protocol.
func openHTTP(address string) (cache.CAS, cache.ActionCache, io.Closer, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("cache address %q: %w", address, err)
	}
	header := http.Header{}
	token, err := tokenFor(u)
	if err != nil {
		return nil, nil, nil, err
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	transport := httpcache.Transport()
	if transport.TLSClientConfig, err = tlsConfig(); err != nil {
		return nil, nil, nil, fmt.Errorf("cache %s: %w", u.Redacted(), err)
	}
	c, err := httpcache.New(address, &http.Client{Transport: transport}, header)
	if err != nil {
		return nil, nil, nil, err
	}
	return c, c, c, nil
}

func tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	cert, key := os.Getenv(certVariable), os.Getenv(keyVariable)
	if (cert == "") != (key == "") {
		return nil, fmt.Errorf("%s and %s go together", certVariable, keyVariable)
	}
	if cert != "" {
		// Read at each handshake: short-lived certificates are replaced while a program runs.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cert, key)
			return &pair, err
		}
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", certVariable, keyVariable, err)
		}
	}
	if ca := os.Getenv(caVariable); ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", caVariable, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s holds no certificate in PEM form", caVariable, ca)
		}
	}
	return c, nil
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
