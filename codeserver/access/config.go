package access

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/pexpress/pexpress/cache/auth"
)

// Config is what the configuration file says.
type Config struct {
	Cert        string   `toml:"tls-cert"`
	Key         string   `toml:"tls-key"`
	ClientCA    string   `toml:"tls-client-ca"`
	Tokens      string   `toml:"tokens"`
	Connections int      `toml:"max-connections"`
	OIDC        []issuer `toml:"oidc"`
	Grants      []grant  `toml:"grant"`
}

type issuer struct {
	Issuer   string `toml:"issuer"`
	Audience string `toml:"audience"`
	Rules    []struct {
		Claims    map[string]string `toml:"claims"`
		Principal string            `toml:"principal"`
	} `toml:"rule"`
}

type grant struct {
	Locations []string `toml:"locations"`
	Read      []string `toml:"read"`
	Deploy    []string `toml:"deploy"`
	Rollback  []string `toml:"rollback"`
	Remove    []string `toml:"remove"`
}

// Load reads a configuration file. A key that it does not know is an error: a right that is misspelt must not be missed.
func Load(file string) (*Config, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c := &Config{}
	dec := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", file, explain(err))
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", file, err)
	}
	return c, nil
}

// explain says where in the file the error is.
func explain(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		line, _ := unknown.Errors[0].Position()
		return fmt.Errorf("line %d: there is no key %q", line, strings.Join(unknown.Errors[0].Key(), "."))
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, column := bad.Position()
		return fmt.Errorf("line %d, column %d: %s", line, column, strings.TrimPrefix(bad.Error(), "toml: "))
	}
	return err
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
	if strings.HasPrefix(address, "unix://") {
		return fmt.Errorf("--listen %s is a socket whose file mode says who may use it, and the configuration's grants would "+
			"not hold there: listen on host:port, or leave --config out", address)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--listen %s: %w; use host:port or unix:///socket", address, err)
	}
	if c.Cert == "" && host != "localhost" && !net.ParseIP(host).IsLoopback() {
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
		v, err := auth.NewOIDC(c.issuers(), auth.OIDCOptions{})
		if err != nil {
			return nil, err
		}
		o.Verifiers = append(o.Verifiers, v)
	}
	return auth.New(o), nil
}

func (c *Config) issuers() []auth.Issuer {
	var all []auth.Issuer
	for _, o := range c.OIDC {
		i := auth.Issuer{URL: o.Issuer, Audience: o.Audience}
		for _, r := range o.Rules {
			i.Rules = append(i.Rules, auth.Rule{Claims: r.Claims, Principal: r.Principal})
		}
		all = append(all, i)
	}
	return all
}
