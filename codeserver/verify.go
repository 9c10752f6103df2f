package codeserver

import (
	"context"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// Verify says whether a deploy may be made: it is asked before anything of it is loaded. An error that wraps
// provenance.ErrUntrusted is the deployer's.
type Verify func(ctx context.Context, location string, spec *codeserverpb.VersionSpec, envelope []byte) error

// verify refuses deploys that are not trusted. What is served, or kept for a rollback, was trusted when it was deployed.
func (s *Server) verify(ctx context.Context, req *codeserverpb.DeployRequest) error {
	if s.opts.Verify == nil {
		return nil
	}
	return s.opts.Verify(ctx, req.GetLocation(), req.GetSpec(), req.GetProvenance())
}
