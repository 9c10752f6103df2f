package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/metadata"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/durable"
	"github.com/pexpress/pexpress/codeserver/client"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/provenance"
)

const signKeyVariable = "PEXPRESS_SIGN_KEY"

func (a *app) signFlag(c *cobra.Command) {
	c.Flags().StringVar(&a.signKey, "sign-key", "",
		"file of the private key to sign the deploy with, for codeservers that take signed ones only [$"+signKeyVariable+"]")
}

// sign adds to a request who vouches for it, if a key is named. What it says beside the request is d's.
func (a *app) sign(ctx context.Context, req *codeserverpb.DeployRequest, d provenance.Deploy) error {
	path := first(a.signKey, os.Getenv(signKeyVariable))
	if path == "" {
		return nil
	}
	key, err := provenance.ReadPrivate(path)
	if err != nil {
		return inputError{err}
	}
	d.Location, d.Spec = req.GetLocation(), req.GetSpec()
	req.Provenance, err = provenance.Sign(ctx, key, d)
	return err
}

// provenance is what is known of how a location was built: its Actions, and its lock as it is in dir now.
func (b *built) provenance(dir string) (provenance.Deploy, error) {
	d := provenance.Deploy{Actions: map[string]digest.Digest{}}
	for _, r := range b.all() {
		d.Actions[r.name] = r.Action
	}
	content, err := durable.ReadFile(filepath.Join(dir, b.location.Lock))
	switch {
	case errors.Is(err, os.ErrNotExist): // a project without requirements needs none
		return d, nil
	case err != nil:
		return d, fmt.Errorf("sign: %w", err)
	}
	d.Lock = digest.FromBytes(content)
	return d, nil
}

// signBuilt signs the deploy of what was built.
func (a *app) signBuilt(ctx context.Context, req *codeserverpb.DeployRequest, b *built, dir string) error {
	d, err := b.provenance(dir)
	if err != nil {
		return err
	}
	return a.sign(ctx, req, d)
}

// showServer has the codeserver shown the run's own token, unless it is shown other credentials: two would be refused.
func (j *ciJob) showServer(ctx context.Context, address string) (context.Context, error) {
	if c := client.FromEnvironment(); c.Token != "" || c.Cert != "" {
		return ctx, nil
	}
	if !client.Secure(address) {
		return j.serverContext(ctx, address)
	}
	token, err := j.token(ctx, j.opts.serverAudience, gitlabServerToken)
	if err != nil || token == "" {
		return ctx, err
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}
