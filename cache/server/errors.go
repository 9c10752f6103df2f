package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// errStored marks a failure of what the cache holds, so that it is not taken for one of what the client sent.
var errStored = errors.New("the cache's copy was corrupt and is set aside: send or build it again")

// stored marks an error of reading.
func stored(err error) error {
	if errors.Is(err, digest.ErrMismatch) {
		return fmt.Errorf("%w: %w", errStored, err)
	}
	return err
}

// code sorts an error by what the caller can do about it.
func code(err error) codes.Code {
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return codes.NotFound
	case errors.Is(err, errStored):
		return codes.DataLoss
	case errors.Is(err, cache.ErrFull):
		return codes.ResourceExhausted
	case errors.Is(err, digest.ErrInvalid), errors.Is(err, digest.ErrMismatch), errors.Is(err, errFrame),
		errors.Is(err, merkle.ErrPath), errors.Is(err, merkle.ErrMessage), errors.Is(err, merkle.ErrTooLarge), errors.Is(err, proto.Error):
		return codes.InvalidArgument
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return codes.Unavailable
}

// fail turns an error into the status that a client sees; nil stays nil. What has a status keeps it.
func fail(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(code(err), err.Error())
}

// Precondition turns an error into the status that a client sees, and a miss into FAILED_PRECONDITION: NOT_FOUND would
// read as "no such ActionResult" or "no such blob" where the caller asked for neither.
func Precondition(err error) error {
	if err == nil {
		return nil
	}
	if code(err) == codes.NotFound || status.Code(err) == codes.NotFound {
		return status.Errorf(codes.FailedPrecondition, "%v: upload it first", err)
	}
	return fail(err)
}

// checkMessage refuses a digest that is too large to be a message's: to try again would not help.
func checkMessage(d digest.Digest) error {
	if d.Size() > cache.MaxMessage {
		return status.Errorf(codes.InvalidArgument, "%s is larger than the %d bytes that a message may have", d, cache.MaxMessage)
	}
	return nil
}
