package access_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/auth"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestEveryMethodByEveryone calls each method about the location "web", as everyone that there may be. A method that is added
// is tried too, and has to be added to the rows of those who may call it.
func TestEveryMethodByEveryone(t *testing.T) {
	tokens := map[string]string{"nobody": "", "wrong": "0123456789abcdef0123456789abcdef"}
	var lines []string
	for _, name := range []string{"stranger", "other", "reader", "deployer", "roller", "remover"} {
		token, line, err := auth.NewToken(name)
		require.NoError(t, err)
		tokens[name], lines = token, append(lines, line)
	}
	address := serve(t, `tokens = "`+write(t, "tokens", strings.Join(lines, "\n")+"\n")+`"
[[grant]]
locations = ["web"]
read = ["token:reader"]
deploy = ["token:deployer"]
rollback = ["token:roller"]
remove = ["token:remover"]
[[grant]]
locations = ["other", "web-*", "*-web"]
read = ["token:other"]
deploy = ["token:other"]
rollback = ["token:other"]
remove = ["token:other"]
`)
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	// One location that is not allowed is one too many: DeployAll is about two.
	requests := map[string]func(location string) proto.Message{
		"Deploy": func(l string) proto.Message { return &codeserverpb.DeployRequest{Location: l} },
		"DeployAll": func(l string) proto.Message {
			return &codeserverpb.DeployAllRequest{Deploys: []*codeserverpb.DeployRequest{{Location: l}, {Location: "web"}}}
		},
		"Rollback": func(l string) proto.Message { return &codeserverpb.RollbackRequest{Location: l} },
		"Restart":  func(l string) proto.Message { return &codeserverpb.RestartRequest{Location: l} },
		"Remove":   func(l string) proto.Message { return &codeserverpb.RemoveRequest{Location: l} },
		"List":     func(string) proto.Message { return &codeserverpb.ListRequest{} },
		"Watch":    func(l string) proto.Message { return &codeserverpb.WatchRequest{Location: l} },
		"Logs":     func(l string) proto.Message { return &codeserverpb.LogsRequest{Location: l} },
	}
	may := map[string]string{ // List is for everyone who is known, and shows what one may read
		"stranger": "List", "other": "List", "reader": "List Watch Logs", "deployer": "List Watch Logs Deploy DeployAll",
		"roller": "List Watch Logs Rollback Restart", "remover": "List Watch Logs Remove",
	}
	call := func(ctx context.Context, name string, streams bool, req proto.Message) codes.Code {
		method := "/" + codeserverpb.CodeServer_ServiceDesc.ServiceName + "/" + name
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if !streams {
			return status.Code(conn.Invoke(ctx, method, req, &codeserverpb.RemoveResponse{}))
		}
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
		require.NoError(t, err)
		if err = s.SendMsg(req); err == nil {
			err = s.CloseSend()
		}
		require.NoError(t, err)
		if err = s.RecvMsg(&codeserverpb.RemoveResponse{}); errors.Is(err, io.EOF) {
			err = nil // there is nothing that one may see
		}
		return status.Code(err)
	}
	methods := map[string]bool{} // whether they stream
	for _, m := range codeserverpb.CodeServer_ServiceDesc.Methods {
		methods[m.MethodName] = false
	}
	for _, m := range codeserverpb.CodeServer_ServiceDesc.Streams {
		methods[m.StreamName] = true
	}
	require.Len(t, methods, len(requests))
	for who, token := range tokens {
		ctx := t.Context()
		if token != "" {
			ctx = withToken(ctx, token)
		}
		for name, streams := range methods {
			got := call(ctx, name, streams, requests[name]("web"))
			switch {
			case may[who] == "":
				require.Equal(t, codes.Unauthenticated, got, "%s by %s", name, who)
			case strings.Contains(" "+may[who]+" ", " "+name+" "):
				require.Contains(t, []codes.Code{codes.OK, codes.Unimplemented}, got, "%s by %s", name, who)
			default:
				require.Equal(t, codes.PermissionDenied, got, "%s by %s", name, who)
			}
			// Names that a pattern or a path could be taken in by.
			for _, l := range []string{"web/../other", "other/../web", "../web", "web\x00", "WEB", "web ", "web-x/../web", "*", "web\n", "ｗｅｂ"} {
				if name == "List" || who == "other" && l == "*" {
					continue
				}
				require.Contains(t, []codes.Code{codes.Unauthenticated, codes.PermissionDenied, codes.Internal}, call(ctx, name, streams, requests[name](l)),
					"%s of %q by %s", name, l, who)
			}
		}
	}
}
