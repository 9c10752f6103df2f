package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pexpress/pexpress/cache/observe"
	"github.com/pexpress/pexpress/cache/s3"
)

const statsHelp = `Say what a running server has done and holds, or what a bucket or a disk tier holds.

  pexcache stats                                     the server on this host
  pexcache stats --server https://HOST:8981          another one, with the token in $PEXPRESS_CACHE_TOKEN
  pexcache stats --s3 s3://BUCKET/PREFIX             the bucket itself
  pexcache stats --disk DIR                          a disk tier that no server has open`

func statsCommand(u *ui) *cobra.Command {
	var s where
	var address, ca string
	c := &cobra.Command{
		Use: "stats", Short: "Say what a server or a bucket holds, and what it costs", Long: statsHelp, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case s.S3 != "":
				return statsBucket(c.Context(), u, &s)
			case s.Disk != "":
				return statsDisk(u, &s.storage)
			}
			return statsServer(c.Context(), u, address, ca)
		},
	}
	s.flags(c, true)
	c.Flags().StringVar(&address, "server", "http://127.0.0.1:8981", "HTTP address of a server")
	c.Flags().StringVar(&ca, "server-ca", "", "file of the authorities that the server's certificate may be of (default: the system's)")
	c.MarkFlagsMutuallyExclusive("s3", "disk", "server")
	return c
}

func statsServer(ctx context.Context, u *ui, address, ca string) error {
	s, err := fetchStatus(ctx, address, ca)
	if err != nil {
		return err
	}
	if u.json {
		u.event("stats", s, "")
		return nil
	}
	u.event("stats", s, "%s, %s, up %s\n%s, %d of the server's making failed, %d under way", address, s.Version,
		s.Now.Sub(s.Started).Round(time.Second), count(s.Requests, "request"), s.Errors, s.Active)
	for _, i := range s.Instances {
		name := i.Name
		if name == "" {
			name = "(default)"
		}
		u.event("", nil, "instance %s: %s hit, %s missed, %s stored; %s read, %s written", name, count(i.Hits, "lookup"),
			count(i.Misses, "lookup"), count(i.Updates, "result"), size(i.Read), size(i.Written))
		for _, m := range i.Mnemonics {
			u.event("", nil, "  %-30s %6.1f %% of %d", m.Name, 100*float64(m.Hits)/float64(max(1, m.Hits+m.Misses)), m.Hits+m.Misses)
		}
	}
	for i := range s.Tiers {
		tellTier(u, &s.Tiers[i])
	}
	if s.S3.Requests > 0 {
		u.event("", nil, "requests to S3: %d, $%.4f", s.S3.Requests, s.S3.Dollars)
		for _, o := range s.S3.ByOp {
			u.event("", nil, "  %-8s %10d  $%.4f", o.Name, o.Requests, o.Dollars)
		}
	}
	return nil
}

func tellTier(u *ui, t *observe.Tier) {
	limit := ""
	if t.MaxBytes > 0 {
		limit = " of " + size(t.MaxBytes)
	}
	u.event("", nil, "%s: %s%s in %s, %d evicted, %d damaged", t.Name, size(t.Bytes), limit, count(t.Entries, "entry"), t.Evicted, t.Damaged)
}

// fetchStatus asks a server for what its status page shows.
func fetchStatus(ctx context.Context, address, ca string) (*observe.Status, error) {
	client := &http.Client{Timeout: 30 * time.Second}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, usageError{err}
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, usageError{fmt.Errorf("--server-ca %s holds no certificate in PEM form", ca)}
		}
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+"/status.json", nil)
	if err != nil {
		return nil, usageError{err}
	}
	if token := os.Getenv("PEXPRESS_CACHE_TOKEN"); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, unavailableError{fmt.Errorf("%w: is the server running? Another address: --server", err)}
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, 64<<20)
	if resp.StatusCode != http.StatusOK {
		says, _ := io.ReadAll(io.LimitReader(body, 500)) // what there is of it explains the status
		err := fmt.Errorf("%s answered %s: %s", address, resp.Status, strings.TrimSpace(string(says)))
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
			return nil, refusedError{fmt.Errorf("%w; the token is what PEXPRESS_CACHE_TOKEN holds", err)}
		}
		return nil, unavailableError{err}
	}
	var s observe.Status
	if err := json.NewDecoder(body).Decode(&s); err != nil {
		return nil, unavailableError{fmt.Errorf("%s does not answer as a pexcache does: %w", address, err)}
	}
	return &s, nil
}

func statsBucket(ctx context.Context, u *ui, s *where) error {
	return withBucket(ctx, s, true, func(b *s3.Store) error {
		st := b.Stats()
		u.event("stats", st, "%s in %s, %s loaded of %d shards and %d tails; %s condemned and waiting to be deleted", size(st.Bytes),
			count(st.Packs, "pack"), count(st.Entries, "entry"), st.Shards, st.Tails, count(st.Condemned, "pack"))
		return nil
	})
}

func statsDisk(u *ui, s *storage) error {
	d, err := s.openTier()
	if err != nil {
		return err
	}
	st := d.Stats()
	u.event("stats", st, "%s of %s in %s", size(st.Bytes), size(st.MaxBytes), count(st.Entries, "entry"))
	return errors.Join(d.Close())
}
