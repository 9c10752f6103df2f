package open

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/s3"
)

// openBucket opens a bucket without a server in front of it. Credentials, region and endpoint come from where the AWS
// tools look for them.
func openBucket(ctx context.Context, address string) (cache.CAS, cache.ActionCache, io.Closer, error) {
	o, instance, err := parseBucket(address)
	if err != nil {
		return nil, nil, nil, err
	}
	o.Endpoint = cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	o.PathStyle = o.Endpoint != "" // services beside AWS seldom have a host for each bucket
	s, err := s3.Open(ctx, o)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("cache %s: %w", address, err)
	}
	c := s.Namespace(instance)
	return c, c, s, nil
}

// parseBucket splits s3://bucket/prefix?instance=name.
func parseBucket(address string) (o s3.Options, instance string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return o, "", fmt.Errorf("cache address %q: %w", address, err)
	}
	query := u.Query()
	instance = query.Get("instance")
	query.Del("instance")
	if u.Host == "" || u.Port() != "" || u.User != nil || u.Fragment != "" || len(query) > 0 {
		return o, "", fmt.Errorf("cache address %q: use s3://bucket/prefix or s3://bucket/prefix?instance=name", address)
	}
	return s3.Options{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}, instance, nil
}
