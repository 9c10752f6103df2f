package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// NewClient returns the bucket that o names. It makes no request but those of the credential chain.
func NewClient(ctx context.Context, o Options) (*Client, error) {
	if o.Bucket == "" {
		return nil, errors.New("no bucket is named")
	}
	load := []func(*config.LoadOptions) error{
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(so *retry.StandardOptions) {
				so.MaxAttempts = attempts
				so.Backoff = backoff(cmp.Or(o.backoff, firstBackoff))
				// The bucket tells one client to slow down for what others do: its errors say nothing of the next request.
				so.RateLimiter = noRateLimit{}
			})
		}),
	}
	switch {
	case o.Region != "":
		load = append(load, config.WithRegion(o.Region))
	case o.Endpoint != "":
		load = append(load, config.WithDefaultRegion("us-east-1"))
	}
	if o.Credentials != nil {
		load = append(load, config.WithCredentialsProvider(o.Credentials))
	}
	// Loaded with this client even where another one makes the requests: only to it can $AWS_CA_BUNDLE be applied.
	load = append(load, config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost, t.MaxConnsPerHost = requestsAtOnce, 2*requestsAtOnce
		t.ResponseHeaderTimeout = idleTime
	})))
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("load the S3 configuration: %w", err)
	}
	api := s3.NewFromConfig(cfg, func(so *s3.Options) {
		so.UsePathStyle = o.PathStyle
		if t := o.transport(cfg.HTTPClient); t != nil {
			so.HTTPClient = &http.Client{Transport: t}
		}
		so.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		so.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		if o.Endpoint != "" {
			so.BaseEndpoint = aws.String(o.Endpoint)
		}
	})
	c := &Client{api: api, o: o, slots: make(chan struct{}, requestsAtOnce), reads: make(chan struct{}, requestsAtOnce)}
	if p := strings.Trim(o.Prefix, "/"); p != "" {
		c.prefix = p + "/"
	}
	return c, nil
}

// transport returns what requests go through if the options say so; own is what they would go through otherwise.
func (o *Options) transport(own aws.HTTPClient) http.RoundTripper {
	t := o.Transport
	if b, ok := own.(*awshttp.BuildableClient); ok && t == nil && o.Wrap != nil {
		t = b.GetTransport()
	}
	if t != nil && o.Wrap != nil {
		t = o.Wrap(t)
	}
	return t
}

// backoff is exponential with full jitter: a second try soon, the last one seconds later.
func backoff(first time.Duration) retry.BackoffDelayerFunc {
	return func(attempt int, _ error) (time.Duration, error) {
		return rand.N(min(maxBackoff, first<<min(attempt, 10))), nil
	}
}

// noRateLimit lets every retry through; attempts bounds them.
type noRateLimit struct{}

func (noRateLimit) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}
func (noRateLimit) AddTokens(uint) error { return nil }
