package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/instance"
	"github.com/pexpress/pexpress/cache/observe"
	"github.com/pexpress/pexpress/cache/s3"
	"github.com/pexpress/pexpress/cache/tomlfile"
)

// config is what serve is told, by flags and by a file with the same keys. Tables are in the file only.
type config struct {
	Listen      string        `toml:"listen"`
	HTTPListen  string        `toml:"http-listen"`
	Drain       durationValue `toml:"drain"`
	LogLevel    string        `toml:"log-level"`
	Pprof       string        `toml:"pprof"`
	Connections int           `toml:"max-connections"`
	Memory      bytesValue    `toml:"max-memory"`

	storage

	WriteBack   bool       `toml:"write-back"`
	JournalSize bytesValue `toml:"write-back-size"`

	TLSCert     string   `toml:"tls-cert"`
	TLSKey      string   `toml:"tls-key"`
	TLSClientCA string   `toml:"tls-client-ca"`
	Tokens      string   `toml:"tokens"`
	Origins     []string `toml:"asset-origins"`
	Observers   []string `toml:"observers"`
	AnyoneMay   bool     `toml:"insecure-anyone-can-read-and-write"`
	InTheClear  bool     `toml:"insecure-tokens-and-blobs-in-the-clear"`

	Prices    map[string]float64 `toml:"s3-prices"`
	OIDC      []auth.Issuer      `toml:"oidc"`
	Instances []instanceConfig   `toml:"instance"`
}

// storage says where the cache is. Commands that look after it take the same flags.
type storage struct {
	Disk        string        `toml:"disk"`
	DiskSize    bytesValue    `toml:"disk-size"`
	Retention   durationValue `toml:"retention"`
	S3          string        `toml:"s3"`
	S3Endpoint  string        `toml:"s3-endpoint"`
	S3Region    string        `toml:"s3-region"`
	S3PathStyle bool          `toml:"s3-path-style"`
	S3SSE       string        `toml:"s3-sse"`
	S3SSEKey    string        `toml:"s3-sse-key"`
}

type instanceConfig struct {
	Name         string     `toml:"name"`
	Parent       *string    `toml:"parent"`
	Quota        bytesValue `toml:"quota"`
	Read         []string   `toml:"read"`
	WriteCAS     []string   `toml:"write-cas"`
	WriteActions []string   `toml:"write-actions"`
}

func defaults() config {
	return config{
		Listen: "127.0.0.1:8980", HTTPListen: "127.0.0.1:8981", Drain: durationValue(30 * time.Second), LogLevel: "info",
		Connections: 10_000, Memory: 512 << 20, JournalSize: 10 << 30,
		storage: storage{DiskSize: 50 << 30, Retention: durationValue(s3.DefaultRetention)},
	}
}

// flags adds the flags of the storage.
func (s *storage) flags(f *pflag.FlagSet) {
	f.StringVar(&s.Disk, "disk", s.Disk, "directory of the disk tier; one process at a time owns it")
	f.Var(&s.DiskSize, "disk-size", "what the disk tier may take up")
	f.Var(&s.Retention, "retention", "how long what was reported present stays readable, at least")
	f.StringVar(&s.S3, "s3", s.S3, "s3://BUCKET/PREFIX that keeps the cache, shared by any number of nodes")
	f.StringVar(&s.S3Endpoint, "s3-endpoint", s.S3Endpoint, "URL of an S3-compatible service (default AWS, or $AWS_ENDPOINT_URL)")
	f.StringVar(&s.S3Region, "s3-region", s.S3Region, "the bucket's region (default: as the AWS tools find it)")
	f.BoolVar(&s.S3PathStyle, "s3-path-style", s.S3PathStyle, "name the bucket in the path and not in the host, as most services beside AWS need")
	f.StringVar(&s.S3SSE, "s3-sse", s.S3SSE, "server-side encryption: AES256 or aws:kms (default: the bucket's own)")
	f.StringVar(&s.S3SSEKey, "s3-sse-key", s.S3SSEKey, "with aws:kms, the key's id")
}

// flags adds the flags of serve.
func (c *config) flags(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", c.Listen, "address of the gRPC services: host:port or unix:///socket")
	f.StringVar(&c.HTTPListen, "http-listen", c.HTTPListen, "address of the HTTP cache, the status page and /metrics: host:port, unix:///socket or none")
	f.Var(&c.Drain, "drain", "how long requests under way may take after SIGTERM")
	f.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug (every request), info, warn or error")
	f.StringVar(&c.Pprof, "pprof", c.Pprof, "loopback address for Go's profiler (default: none)")
	f.IntVar(&c.Connections, "max-connections", c.Connections, "open connections on each address")
	f.Var(&c.Memory, "max-memory", "buffers that all requests together may hold; others wait")
	c.storage.flags(f)
	f.BoolVar(&c.WriteBack, "write-back", c.WriteBack, "acknowledge a write when it is in a journal on this disk, and bring it to S3 later: faster, and lost with the disk")
	f.Var(&c.JournalSize, "write-back-size", "what the journal of --write-back may take up")
	f.StringVar(&c.TLSCert, "tls-cert", c.TLSCert, "file of the server's certificate chain, read again when it changes")
	f.StringVar(&c.TLSKey, "tls-key", c.TLSKey, "file of its key")
	f.StringVar(&c.TLSClientCA, "tls-client-ca", c.TLSClientCA, "file of the authorities whose client certificates are taken")
	f.StringVar(&c.Tokens, "tokens", c.Tokens, "file with the hashes of static tokens, as 'pexcache token' makes them; read again when it changes")
	f.StringSliceVar(&c.Origins, "asset-origins", c.Origins, "what the Remote Asset service may fetch from: https://HOST, https://*.DOMAIN, or networks such as 10.0.0.0/8 (default: nothing, only what was pushed is found)")
	f.StringSliceVar(&c.Observers, "observers", c.Observers, "principals who may see /metrics and all of the status page")
	f.BoolVar(&c.AnyoneMay, "insecure-anyone-can-read-and-write", false, "serve a network without authentication: whoever reaches a port can read, and put into the cache what others will run")
	f.BoolVar(&c.InTheClear, "insecure-tokens-and-blobs-in-the-clear", false, "serve a network without TLS: whoever sees the traffic can read and change it, and use its tokens")
}

// load reads the file over the defaults; flags that were given count before it.
func (c *config) load(cmd *cobra.Command, path string) error {
	if path == "" {
		return nil
	}
	given := map[string]string{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		given[f.Name] = f.Value.String()
	})
	for name, list := range map[string]*[]string{"observers": &c.Observers, "asset-origins": &c.Origins} {
		if _, ok := given[name]; ok { // Set would add to a list
			delete(given, name)
			defer func(l []string) { *list = l }(*list)
		}
	}
	if err := c.decode(path); err != nil {
		return err
	}
	for name, value := range given {
		if err := cmd.Flags().Set(name, value); err != nil {
			return usageError{err}
		}
	}
	return nil
}

func (c *config) decode(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return configErrorf("configuration: %w", err)
	}
	if err := tomlfile.Decode(b, c); err != nil {
		return configErrorf("configuration %s: %w", path, err)
	}
	return nil
}

// authenticated reports whether callers can say who they are.
func (c *config) authenticated() bool {
	return c.TLSClientCA != "" || c.Tokens != "" || len(c.OIDC) > 0
}

// instances returns what is served. Without authentication everyone is anonymous and has every right, since there is no
// telling them apart; the default instance is there if no other is named.
func (c *config) instances() []instance.Config {
	var all []instance.Config
	for _, i := range c.Instances {
		all = append(all, instance.Config{
			Name: i.Name, Parent: i.Parent, Quota: int64(i.Quota), Read: i.Read, WriteCAS: i.WriteCAS, WriteActions: i.WriteActions,
		})
	}
	if len(all) == 0 && !c.authenticated() {
		all = []instance.Config{{}}
	}
	if !c.authenticated() {
		everyone := auth.Patterns{auth.Anonymous}
		for i := range all {
			all[i].Read, all[i].WriteCAS, all[i].WriteActions = everyone, everyone, everyone
		}
	}
	return all
}

func (c *config) prices() observe.Prices { return observe.ListPrices.With(c.Prices) }
