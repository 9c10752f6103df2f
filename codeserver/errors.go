package codeserver

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
	"github.com/pexpress/pexpress/codeserver/loader"
	"github.com/pexpress/pexpress/codeserver/provenance"
	"github.com/pexpress/pexpress/codeserver/venv"
)

// Kinds of errors, by what the one who deploys can do about them.
var (
	errRequest     = errors.New("request refused")
	errNotFound    = errors.New("not found")
	errRefused     = errors.New("cannot be done here")
	errNotReady    = errors.New("the version did not become ready")
	errAborted     = errors.New("aborted")
	errUnavailable = errors.New("not available")
)

// codeOf orders the kinds: an error may be of several, and is of the first.
var codeOf = []struct {
	err  error
	code codes.Code
}{
	{errRequest, codes.InvalidArgument},
	{provenance.ErrUntrusted, codes.PermissionDenied},
	{errNotFound, codes.NotFound},
	{errAborted, codes.Aborted},
	{errUnavailable, codes.Unavailable},
	{errRefused, codes.FailedPrecondition},
	{errNotReady, codes.FailedPrecondition},
	{errTrial, codes.FailedPrecondition},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
}

// toStatus is the edge at which errors become gRPC codes.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	err = classify(err)
	for _, c := range codeOf {
		if errors.Is(err, c.err) {
			return status.Error(c.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}

// classify says of which kind an error of loading and writing trees is.
func classify(err error) error {
	for _, c := range codeOf {
		if errors.Is(err, c.err) {
			return err
		}
	}
	switch {
	case errors.Is(err, loader.ErrCache), errors.Is(err, digest.ErrMismatch):
		return fmt.Errorf("%w: %w", errUnavailable, err)
	case errors.Is(err, cache.ErrNotFound):
		return fmt.Errorf("%w: %w; deploy it again; if that does not help: do the codeserver and pexpress use the same cache?", errNotFound, err)
	case errors.Is(err, venv.ErrWheel), errors.Is(err, merkle.ErrPath), errors.Is(err, loader.ErrNoFile):
		return fmt.Errorf("%w: %w", errRequest, err)
	case isFull(err):
		return fmt.Errorf("%w: no room left in the state directory: %w", errRefused, err)
	}
	return err
}

func isFull(err error) bool {
	for _, full := range []error{cache.ErrFull, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}
