package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/pexpress/pexpress/cache/local"
)

// Issuer is an OpenID Connect issuer whose tokens are taken, as a configuration file says it.
type Issuer struct {
	// URL is the issuer as its tokens name it, https unless it is on this host.
	URL string `toml:"issuer"`
	// Audience must be among the token's: tokens that were made for others are refused.
	Audience string `toml:"audience"`
	// Rules turn claims into a principal, the first that fits. Without any the principal is the issuer's URL and the token's
	// subject, "{iss}#{sub}": what two issuers call by one name are two.
	Rules []Rule `toml:"rule"`
}

// OIDCOptions are what verifying needs beside the issuers.
type OIDCOptions struct {
	Client *http.Client     // for the issuers' keys; nil for one with time limits
	Skew   time.Duration    // by how much clocks may differ; 0 for a minute
	Now    func() time.Time // nil for time.Now
}

// OIDC verifies tokens of OpenID Connect issuers. Their keys are fetched when they are first needed, and kept: an issuer
// that is away later keeps nobody out whose key is known.
type OIDC struct {
	issuers map[string]*issuer
	now     func() time.Time

	mu   sync.Mutex
	seen map[[sha256.Size]byte]verified
}

// verified is what a token was found to say, so that each of a build's thousands of calls does not cost a signature.
type verified struct {
	name  string
	until time.Time
}

// maxSeen bounds the tokens that are remembered: a team's builds of an hour or two.
const maxSeen = 10_000

type issuer struct {
	Issuer
	client *http.Client
	now    func() time.Time

	mu     sync.Mutex
	keys   oidc.KeySet
	algs   []string
	tried  time.Time
	failed error
}

// NewOIDC checks the issuers' settings. It asks none of them anything yet.
func NewOIDC(issuers []Issuer, o OIDCOptions) (*OIDC, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Skew == 0 {
		o.Skew = time.Minute
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: 10 * time.Second}
	}
	v := &OIDC{issuers: map[string]*issuer{}, now: o.Now, seen: map[[sha256.Size]byte]verified{}}
	for _, i := range issuers {
		if err := checkIssuer(i); err != nil {
			return nil, fmt.Errorf("oidc issuer %q: %w", i.URL, err)
		}
		if v.issuers[i.URL] != nil {
			return nil, fmt.Errorf("oidc issuer %q is there twice: give one several rules instead", i.URL)
		}
		client := *o.Client
		client.Transport = newSparing(client.Transport, o.Now)
		// The library asks only whether a token has expired, and whether it holds already with minutes to spare: a clock that
		// is behind by the skew answers both as we want.
		for _, other := range v.issuers {
			if err := distinct(i, other.Issuer); err != nil {
				return nil, err
			}
		}
		v.issuers[i.URL] = &issuer{Issuer: i, client: &client, now: func() time.Time { return o.Now().Add(-o.Skew) }}
	}
	return v, nil
}

func checkIssuer(i Issuer) error {
	if err := checkURL(i.URL); err != nil {
		return err
	}
	if i.Audience == "" {
		return errors.New("say which audience its tokens must have: without one, a token made for any other service would do")
	}
	for _, r := range i.Rules {
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}

// distinct refuses two issuers whose rules may name one principal: each could then speak for the other's callers.
func distinct(a, b Issuer) error {
	for _, ra := range a.rules() {
		for _, rb := range b.rules() {
			if meet(ra.shape(a.URL), rb.shape(b.URL)) {
				return fmt.Errorf("the rules of the oidc issuers %q and %q may name one principal, by %q and %q: begin each with a text of its own, or with {iss}",
					a.URL, b.URL, ra.Principal, rb.Principal)
			}
		}
	}
	return nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if u.RawQuery != "" || strings.Contains(s, "#") {
		return errors.New("it has a query or a fragment")
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && local.IsHost(u.Host)) || u.Host == "" {
		return errors.New("use https://…: keys that come in the clear prove nothing")
	}
	return nil
}

// Verify implements Verifier.
func (v *OIDC) Verify(ctx context.Context, token string) (string, error) {
	i := v.issuers[issuerOf(token)]
	if i == nil {
		return "", errNotMine
	}
	key := sha256.Sum256([]byte(token))
	v.mu.Lock()
	known, ok := v.seen[key]
	v.mu.Unlock()
	if ok && v.now().Before(known.until) {
		return known.name, nil
	}
	name, until, err := i.verify(ctx, token)
	if err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.seen) >= maxSeen {
		clear(v.seen)
	}
	v.seen[key] = verified{name: name, until: until}
	return name, nil
}

// issuerOf returns what a token says of its issuer, unverified, "" if it is no token of this kind.
func issuerOf(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(b, &claims); err != nil {
		return ""
	}
	return claims.Issuer
}

func (i *issuer) verify(ctx context.Context, token string) (name string, until time.Time, err error) {
	keys, algs, err := i.discover(ctx)
	if err != nil {
		return "", until, fmt.Errorf("%w: issuer %s: %w", ErrUnavailable, i.URL, err)
	}
	noted := &noting{KeySet: keys}
	v := oidc.NewVerifier(i.URL, noted, &oidc.Config{ClientID: i.Audience, Now: i.now, SupportedSigningAlgs: algs})
	t, err := v.Verify(ctx, token)
	if noted.away() {
		return "", until, fmt.Errorf("%w: issuer %s: %w", ErrUnavailable, i.URL, noted.err)
	}
	if err != nil {
		return "", until, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	claims := map[string]any{}
	if err := t.Claims(&claims); err != nil {
		return "", until, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	name, err = principal(i.rules(), claims)
	if err != nil {
		return "", until, fmt.Errorf("%w: issuer %s: %w", ErrRefused, i.URL, err)
	}
	return "oidc:" + name, t.Expiry, nil
}

// noting keeps the error of a KeySet: the library passes on only its text, and it matters whether the keys could be had.
type noting struct {
	oidc.KeySet
	err error
}

// VerifySignature implements oidc.KeySet.
func (n *noting) VerifySignature(ctx context.Context, jwt string) (payload []byte, err error) {
	payload, n.err = n.KeySet.VerifySignature(ctx, jwt)
	return payload, n.err
}

func (n *noting) away() bool {
	return errors.Is(n.err, errUnreachable) || errors.Is(n.err, context.Canceled) || errors.Is(n.err, context.DeadlineExceeded)
}

// retryDiscovery is how long an issuer that did not answer is left alone.
const retryDiscovery = 5 * time.Second

// discover asks the issuer once where its keys are. Callers wait for the one that asks.
func (i *issuer) discover(ctx context.Context) (keys oidc.KeySet, algs []string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.keys != nil {
		return i.keys, i.algs, nil
	}
	if i.failed != nil && i.now().Sub(i.tried) < retryDiscovery {
		return nil, nil, i.failed
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	i.failed = i.ask()
	i.tried = i.now()
	return i.keys, i.algs, i.failed
}

// asymmetric are the algorithms with which an issuer's published key can verify, of those that the issuer says it uses.
var asymmetric = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

func (i *issuer) ask() error {
	// The caller's context is left out: the answer is for everyone, and the client has a time limit.
	ctx := oidc.ClientContext(context.Background(), i.client)
	provider, err := oidc.NewProvider(ctx, i.URL)
	if err != nil {
		return err
	}
	var said struct {
		Keys string   `json:"jwks_uri"`
		Algs []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := provider.Claims(&said); err != nil {
		return err
	}
	if err := checkURL(said.Keys); err != nil {
		return fmt.Errorf("its jwks_uri %q: %w", said.Keys, err)
	}
	i.algs = slices.DeleteFunc(said.Algs, func(alg string) bool { return !slices.Contains(asymmetric, alg) })
	i.keys = oidc.NewRemoteKeySet(ctx, said.Keys)
	return nil
}
