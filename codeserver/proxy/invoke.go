package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// maxReply bounds an answer to Invoke.
const maxReply = 256 << 20

// errCall is a unary call of ours that a version did not answer as gRPC wants it.
var errCall = errors.New("no answer to a gRPC call")

// Invoke makes a unary gRPC call on b with an encoded message, over the same
// connections as the requests of clients, and returns the encoded answer. Drain
// waits for it, Stats do not count it. The method is a path, such as
// /grpc.health.v1.Health/Check.
func (b *Backend) Invoke(ctx context.Context, method string, message []byte) ([]byte, error) {
	p := b.join()
	defer b.release()
	req := (&http.Request{
		Method: http.MethodPost,
		URL:    &url.URL{Path: method},
		Host:   b.addr,
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Grpc-Accept-Encoding": {"identity"}},
		Body:   io.NopCloser(bytes.NewReader(frame(message))),
	}).WithContext(ctx)
	res, err := p.send(req, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	status, text := res.Trailer.Get(grpcStatus), res.Trailer.Get("Grpc-Message")
	if status == "" { // an answer of headers only
		status, text = res.Header.Get(grpcStatus), res.Header.Get("Grpc-Message")
	}
	switch {
	case len(reply) > maxReply:
		return nil, fmt.Errorf("%s: %w: more than %d bytes", method, errCall, maxReply)
	case status != "0":
		return nil, fmt.Errorf("%s: %w: HTTP %d, gRPC status %q: %s", method, errCall, res.StatusCode, status, text)
	}
	message, ok := unframe(reply, res.Header, maxReply)
	if !ok {
		return nil, fmt.Errorf("%s: %w: not one message that can be read", method, errCall)
	}
	return message, nil
}

// frame puts gRPC's prefix before a message that is not compressed.
func frame(message []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(b, message...)
}

// unframe returns the message of a body that holds one, of at most limit bytes.
// The header says how messages are compressed.
func unframe(body []byte, header http.Header, limit int) ([]byte, bool) {
	if len(body) < framePrefix || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-framePrefix) {
		return nil, false
	}
	message := body[framePrefix:]
	if body[0] == 0 {
		return message, len(message) <= limit
	}
	if header.Get("Grpc-Encoding") != "gzip" {
		return nil, false
	}
	z, err := gzip.NewReader(bytes.NewReader(message))
	if err != nil {
		return nil, false
	}
	message, err = io.ReadAll(io.LimitReader(z, int64(limit)+1))
	return message, err == nil && len(message) <= limit
}

// framePrefix is the length of what gRPC puts before a message: whether it is
// compressed, and its length.
const framePrefix = 5
