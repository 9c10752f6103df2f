package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// httpClient returns a client with the configured proxy and certificates.
func (c *config) httpClient() (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = atOnce
	t.ResponseHeaderTimeout = 2 * time.Minute
	t.DisableCompression = true
	if c.proxy != "" {
		raw := c.proxy
		if !strings.Contains(raw, "://") {
			raw = "http://" + raw
		}
		u, err := url.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("pip's proxy setting: %w", redact(err))
		}
		t.Proxy = http.ProxyURL(u)
	}
	if c.certFile != "" {
		b, err := os.ReadFile(c.certFile)
		if err != nil {
			return nil, fmt.Errorf("the certificates that pip or uv is configured with: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s, which pip or uv is configured with, holds no certificate in PEM", c.certFile)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: t, CheckRedirect: c.redirect}, nil
}
