// Package dagster knows the calls of Dagster's code servers (api.DagsterApi) that mean something to whoever replaces one
// server by another: those about runs, the one that ends a server, and those that load definitions.
//
// Each request and answer holds JSON of Dagster's own in a protobuf string. The names in it are the ones that Dagster keeps
// for compatibility (its whitelist_for_serdes); they were checked against dagster 1.13.27.
package dagster

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// service is what the paths of a code server's methods begin with.
const service = "/api.DagsterApi/"

// Caller makes unary gRPC calls on one code server. A *proxy.Backend is one.
type Caller interface {
	Invoke(ctx context.Context, method string, message []byte) ([]byte, error)
}

// text returns a message whose field 1 is a string.
func text(s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), s)
}

// field returns the string that a field of a message holds, "" if it is not there; of several the last one counts.
func field(message []byte, number protowire.Number) (string, error) {
	var found string
	for len(message) > 0 {
		n, kind, length := protowire.ConsumeTag(message)
		if length < 0 {
			return "", protowire.ParseError(length)
		}
		message = message[length:]
		if n == number && kind == protowire.BytesType {
			value, length := protowire.ConsumeBytes(message)
			if length < 0 {
				return "", protowire.ParseError(length)
			}
			found, message = string(value), message[length:]
			continue
		}
		if length = protowire.ConsumeFieldValue(n, kind, message); length < 0 {
			return "", protowire.ParseError(length)
		}
		message = message[length:]
	}
	return found, nil
}

// ask makes a call and decodes the JSON in the answer's field 1.
func ask(ctx context.Context, on Caller, method string, message []byte, reply any) error {
	answer, err := on.Invoke(ctx, service+method, message)
	if err != nil {
		return err
	}
	said, err := field(answer, 1)
	if err == nil {
		err = json.Unmarshal([]byte(said), reply)
	}
	if err != nil {
		return fmt.Errorf("read the answer to %s: %w", method, err)
	}
	return nil
}
