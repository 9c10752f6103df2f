package access

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/pexpress/pexpress/cache/auth"
	"github.com/pexpress/pexpress/cache/local"
	"github.com/pexpress/pexpress/cache/tomlfile"
)

// Config is what the configuration file says.
type Config struct {
	Cert        string        `toml:"tls-cert"`
	Key         string        `toml:"tls-key"`
	ClientCA    string        `toml:"tls-client-ca"`
	Tokens      string        `toml:"tokens"`
	Connections int           `toml:"max-connections"`
	OIDC        []auth.Issuer `toml:"oidc"`
	Grants      []grant       `toml:"grant"`
}

type grant struct {
	Locations []string `toml:"locations"`
	Read      []string `toml:"read"`
	Deploy    []string `toml:"deploy"`
	Rollback  []string `toml:"rollback"`
	Remove    []string `toml:"remove"`
}

// Load reads a configuration file.
func Load(file string) (*Config, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c := &Config{}
	if err := tomlfile.Decode(b, c); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", file, err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", file, err)
	}
	return c, nil
}

func (c *Config) check() error {
	switch {
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("tls-cert and tls-key go together")
	case c.ClientCA != "" && c.Cert == "":
		return errors.New("tls-client-ca needs tls-cert and tls-key: certificates are shown within TLS")
	case c.ClientCA == "" && c.Tokens == "" && len(c.OIDC) == 0:
		return errors.New("nothing tells who a caller is: add tokens, tls-client-ca or an [[oidc]]")
	case len(c.Grants) == 0:
		return errors.New("nobody may do anything: add a [[grant]] with locations, and read, deploy, rollback or remove")
	case c.Connections < 0:
		return fmt.Errorf("max-connections is %d", c.Connections)
	}
	_, err := c.Policy()
	return err
}

// Policy returns who may do what.
func (c *Config) Policy() (*Policy, error) {
	var grants []Grant
	for _, g := range c.Grants {
		grants = append(grants, Grant{Locations: g.Locations, Principals: map[Right]auth.Patterns{
			Read: g.Read, Deploy: g.Deploy, Rollback: g.Rollback, Remove: g.Remove,
		}})
	}
	return New(grants)
}

// CheckAddress refuses an address of the control API at which the configuration does not hold, or tokens could be read.
func (c *Config) CheckAddress(address string) error {
	if _, socket := local.Socket(address); socket {
		return fmt.Errorf("--listen %s is a socket whose file mode says who may use it, and the configuration's grants would "+
			"not hold there: listen on host:port, or leave --config out", address)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--listen %s: %w; use host:port or unix:///socket", address, err)
	}
	if c.Cert == "" && !local.IsHost(host) {
		return fmt.Errorf("--listen %s can be reached from other machines, and without TLS tokens would cross the network in the "+
			"clear: add tls-cert and tls-key to the configuration", address)
	}
	return nil
}

// Authenticator returns who says who callers are.
func (c *Config) Authenticator(warn func(error)) (*auth.Authenticator, error) {
	policy, err := c.Policy()
	if err != nil {
		return nil, err
	}
	o := auth.Options{Anonymous: policy.Anonymous()}
	if c.Tokens != "" {
		tokens, err := auth.OpenTokens(c.Tokens)
		if err != nil {
			return nil, err
		}
		o.Verifiers = append(o.Verifiers, &fresh{tokens, warn})
	}
	if len(c.OIDC) > 0 {
		v, err := auth.NewOIDC(c.OIDC, auth.OIDCOptions{})
		if err != nil {
			return nil, err
		}
		o.Verifiers = append(o.Verifiers, v)
	}
	return auth.New(o), nil
}
