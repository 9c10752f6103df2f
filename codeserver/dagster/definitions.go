package dagster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrDefinitions says that a code server runs, and that its code location cannot be loaded.
var ErrDefinitions = errors.New("its definitions do not load")

// Warm makes a code server compute what a webserver asks for when it loads the code location at an address (host:port):
// asset graph and job snapshots. The server keeps them, so that the next one who asks waits a fraction of that time. The
// error is ErrDefinitions when no webserver could load the location.
//
// A webserver asks for each job as well. The server keeps nothing of those answers: there is nothing to gain.
func Warm(ctx context.Context, on Caller, address, location string) error {
	var list struct {
		kind
		errorInfo
		Symbols []struct {
			Repository string `json:"repository_name"`
		} `json:"repository_symbols"`
	}
	if err := ask(ctx, on, "ListRepositories", nil, &list); err != nil {
		return err
	}
	if list.is("SerializableErrorInfo") {
		return fmt.Errorf("%w:\n%w", ErrDefinitions, &list.errorInfo)
	}
	for _, symbol := range list.Symbols {
		request, err := repositoryRequest(address, location, symbol.Repository)
		if err != nil {
			return err
		}
		var reply struct {
			kind
			Error *errorInfo `json:"error"`
		}
		if err := ask(ctx, on, "ExternalRepository", request, &reply); err != nil {
			return err
		}
		if reply.is("ExternalRepositoryErrorData") && reply.Error != nil {
			return fmt.Errorf("%w: repository %s:\n%w", ErrDefinitions, symbol.Repository, reply.Error)
		}
	}
	return nil
}

// kind is the name that Dagster gives to what it serialises.
type kind struct {
	Class string `json:"__class__"`
}

func (k kind) is(class string) bool { return k.Class == class }

// repositoryRequest is an ExternalRepositoryRequest that defers the jobs, as a webserver's does.
func repositoryRequest(address, location, repository string) ([]byte, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	origin, err := json.Marshal(map[string]any{
		"__class__": "ExternalRepositoryOrigin",
		"repository_location_origin": map[string]any{
			"__class__": "GrpcServerRepositoryLocationOrigin", "host": host, "port": number, "socket": nil, "location_name": location,
		},
		"repository_name": repository,
	})
	if err != nil {
		return nil, err
	}
	return protowire.AppendVarint(protowire.AppendTag(text(string(origin)), 2, protowire.VarintType), 1), nil
}
