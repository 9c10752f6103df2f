// Package remote is a client of a REAPI cache: the same two interfaces as a local one, over gRPC.
//
// It stands on remote-apis-sdks' client for the calls, their time limits and retries. Streams are handled here, so that
// a blob of any size passes through without being held in memory.
package remote

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/bazelbuild/remote-apis-sdks/go/pkg/client"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/traces"
)

// smallBlob is the size up to which a blob travels in a unary call rather than in a stream.
const smallBlob = 1 << 20

// batchFind is how many digests one FindMissingBlobs call asks for: about 700 KiB.
const batchFind = 10_000

// Cache is a connection to a REAPI cache.
type Cache struct {
	conn     *grpc.ClientConn
	sdk      *client.Client
	instance string
	target   string
	zstd     bool
}

// Zstd returns the same connection with blobs travelling compressed. It is for servers whose capabilities list ZSTD.
func (c *Cache) Zstd() *Cache {
	z := *c
	z.zstd = true
	return &z
}

// functionOf returns what a request says about the function of its digests. That of sha256 is left out, for servers
// that do not know the field.
func functionOf(d digest.Digest) repb.DigestFunction_Value {
	if f := d.Function(); f != digest.SHA256 {
		return f.Proto()
	}
	return repb.DigestFunction_UNKNOWN
}

// Dial returns a client of the cache at target: grpc://host:port[/instance], grpcs://… (TLS) or unix:///socket. It
// makes no request; the first call that fails says that the cache cannot be reached.
func Dial(ctx context.Context, target string, opts ...grpc.DialOption) (*Cache, error) {
	return dial(ctx, target, defaultPatience, opts...)
}

func dial(ctx context.Context, target string, p patience, opts ...grpc.DialOption) (*Cache, error) {
	address, instance, secure, err := parse(target)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	opts = slices.Concat([]grpc.DialOption{grpc.WithTransportCredentials(creds), grpc.WithNoProxy()}, p.dialOptions(), traces.DialOptions(ctx), opts)
	conn, err := grpc.NewClient(address, opts...)
	if err != nil {
		return nil, fmt.Errorf("cache %s: %w", target, err)
	}
	sdk, err := client.NewClientFromConnection(ctx, instance, conn, conn, append(p.options(), client.StartupCapabilities(false))...)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cache %s: %w", target, err)
	}
	return &Cache{conn: conn, sdk: sdk, instance: instance, target: redacted(target)}, nil
}

// parse splits a target into a gRPC address and an instance name.
func parse(target string) (address, instance string, secure bool, err error) {
	u, err := url.Parse(target)
	if err != nil {
		return "", "", false, fmt.Errorf("cache address %q: %w", target, err)
	}
	switch u.Scheme {
	case "unix":
		return target, "", false, nil
	case "grpc", "grpcs":
		if u.Port() == "" {
			return "", "", false, fmt.Errorf("cache address %q has no port", target)
		}
		return "dns:///" + u.Host, strings.Trim(u.Path, "/"), u.Scheme == "grpcs", nil
	}
	return "", "", false, fmt.Errorf("cache address %q: use grpc://host:port, grpcs://host:port or unix:///socket", target)
}

// redacted is a target without a password that somebody wrote into it.
func redacted(target string) string {
	if u, err := url.Parse(target); err == nil {
		return u.Redacted()
	}
	return target
}

// Close ends the connection.
func (c *Cache) Close() error { return c.conn.Close() }

// FindMissing implements cache.CAS.
func (c *Cache) FindMissing(ctx context.Context, ds []digest.Digest) ([]digest.Digest, error) {
	seen := make(map[digest.Digest]bool, len(ds)) // to whether it is missing
	ask := map[digest.Function][]*repb.Digest{}   // a request is about digests of one function
	var unique []digest.Digest
	for _, d := range ds {
		if _, ok := seen[d]; ok || d.IsEmpty() {
			continue
		}
		if d.IsZero() {
			return nil, fmt.Errorf("find missing blobs: %w: no digest given", digest.ErrInvalid)
		}
		seen[d] = false
		unique = append(unique, d)
		fn := d.Function()
		if ask[fn] = append(ask[fn], d.Proto()); len(ask[fn]) == batchFind {
			if err := c.findBatch(ctx, fn, ask[fn], seen); err != nil {
				return nil, err
			}
			ask[fn] = ask[fn][:0]
		}
	}
	for fn, batch := range ask {
		if err := c.findBatch(ctx, fn, batch, seen); err != nil {
			return nil, err
		}
	}
	var missing []digest.Digest
	for _, d := range unique {
		if seen[d] {
			missing = append(missing, d)
		}
	}
	return missing, nil
}

// findBatch marks those of a batch that are missing.
func (c *Cache) findBatch(ctx context.Context, fn digest.Function, batch []*repb.Digest, missing map[digest.Digest]bool) error {
	if len(batch) == 0 {
		return nil
	}
	req := &repb.FindMissingBlobsRequest{InstanceName: c.instance, BlobDigests: batch}
	if fn != digest.SHA256 {
		req.DigestFunction = fn.Proto()
	}
	resp, err := c.sdk.FindMissingBlobs(ctx, req)
	if err != nil {
		return c.failed("find missing blobs", err)
	}
	for _, p := range resp.GetMissingBlobDigests() {
		d, err := fn.FromProto(p)
		if err != nil {
			return fmt.Errorf("find missing blobs: the cache answered: %w", err)
		}
		missing[d] = true
	}
	return nil
}

// GetActionResult implements cache.ActionCache.
func (c *Cache) GetActionResult(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	ar, err := c.sdk.GetActionResult(ctx, &repb.GetActionResultRequest{
		InstanceName: c.instance, DigestFunction: functionOf(action), ActionDigest: action.Proto(),
	})
	return ar, c.rpcError("action result", action, err)
}

// UpdateActionResult implements cache.ActionCache.
func (c *Cache) UpdateActionResult(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	_, err := c.sdk.UpdateActionResult(ctx, &repb.UpdateActionResultRequest{
		InstanceName: c.instance, DigestFunction: functionOf(action), ActionDigest: action.Proto(), ActionResult: result,
	})
	return c.rpcError("store action result", action, err)
}
