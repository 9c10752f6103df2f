package main

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/pexpress/pexpress/codeserver/client"
)

func TestServerHint(t *testing.T) {
	for text, c := range map[string]struct {
		code codes.Code
		want string
	}{
		`connection error: desc = "error reading server preface: read unix @->/s: use of closed network connection"`: {
			codes.Unavailable, "the server took the connection and says nothing: is it stopped, or overloaded?",
		},
		`connection error: desc = "error reading server preface: EOF"`: {
			codes.Unavailable, "the server does not speak gRPC in the clear: if it has TLS, write grpcs://HOST:PORT for HOST:PORT",
		},
		"tls: first record does not look like a TLS handshake":  {codes.Unavailable, "the server speaks without TLS: write HOST:PORT for grpcs://HOST:PORT"},
		"x509: certificate signed by unknown authority":         {codes.Unavailable, "no authority known here signed the server's certificate: name the file of its authority in PEXPRESS_CODESERVER_CA"},
		"remote error: tls: certificate required":               {codes.Unavailable, "the server asks for a client certificate: set PEXPRESS_CODESERVER_CERT and PEXPRESS_CODESERVER_KEY"},
		"x509: certificate has expired or is not yet valid: so": {codes.Unavailable, "the server's certificate has expired, or a clock is wrong: who runs the codeserver can renew it"},
		"unknown service pexpress.codeserver.v1.CodeServer": {
			codes.Unimplemented, "what answers is no codeserver, or one of another release: unknown service pexpress.codeserver.v1.CodeServer",
		},
		"the codeserver is ending": {codes.Unavailable, "the codeserver is ending"},
	} {
		err := deployError(&client.Error{Addr: "unix:///s", Err: status.Error(c.code, text)})
		require.EqualError(t, err, "codeserver unix:///s: "+c.want)
		require.Equal(t, exitUnavailable, exitCode(err))
	}
}
