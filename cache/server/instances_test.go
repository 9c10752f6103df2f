package server_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	rpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/memory"
	"github.com/pexpress/pexpress/cache/server"
)

// rights are instances by name, and what may be done with each.
type rights map[string]struct {
	store *memory.Store
	may   []server.Access
}

func (r rights) Instance(_ context.Context, name string, want server.Access) (server.Instance, error) {
	i, ok := r[name]
	if !ok {
		return server.Instance{}, status.Errorf(codes.InvalidArgument, "no instance %q", name)
	}
	for _, a := range i.may {
		if a == want {
			return server.Instance{CAS: i.store, ActionCache: i.store}, nil
		}
	}
	return server.Instance{}, status.Errorf(codes.PermissionDenied, "not allowed in %q", name)
}

// tiers returns an instance of each kind, with a blob "there", its mapping excluded, and an ActionResult in each.
func tiers(t *testing.T) rights {
	all := rights{}
	for name, may := range map[string][]server.Access{
		"reader": {server.Read}, "blobs/../x": nil, "a/writer": {server.Read, server.WriteCAS},
		"a/b/trusted": {server.Read, server.WriteCAS, server.WriteActions}, "stranger": nil,
	} {
		m := memory.New()
		put(t, m, "there "+name)
		require.NoError(t, m.UpdateActionResult(t.Context(), of("action"), &repb.ActionResult{StdoutRaw: []byte(name)}))
		entry := all[name]
		entry.store, entry.may = m, may
		all[name] = entry
	}
	return all
}

// calls are all methods, each with the right that it needs.
func calls(t *testing.T, s *served, instance string) map[string]struct {
	need server.Access
	err  error
} {
	type result = struct {
		need server.Access
		err  error
	}
	ctx := t.Context()
	d, there := of("new "+instance), of("there "+instance)
	all := map[string]result{}
	note := func(name string, need server.Access, err error) {
		if status.Code(err) == codes.NotFound {
			err = nil // it was allowed to ask
		}
		all[name] = result{need, err}
	}
	_, err := s.cas.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{InstanceName: instance})
	note("FindMissingBlobs", server.Read, err)
	_, err = s.cas.BatchReadBlobs(ctx, &repb.BatchReadBlobsRequest{InstanceName: instance})
	note("BatchReadBlobs", server.Read, err)
	_, err = pages(t, s, &repb.GetTreeRequest{InstanceName: instance, RootDigest: digest.Empty.Proto()})
	note("GetTree", server.Read, err)
	_, err = readAll(t, s, instance+"/blobs/"+there.String(), 0, 0)
	note("Read", server.Read, err)
	_, err = s.ac.GetActionResult(ctx, &repb.GetActionResultRequest{InstanceName: instance, ActionDigest: of("action").Proto()})
	note("GetActionResult", server.Read, err)
	_, err = s.cas.SplitBlob(ctx, &repb.SplitBlobRequest{InstanceName: instance, BlobDigest: there.Proto()})
	note("SplitBlob", server.Read, err)
	_, err = s.cas.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{InstanceName: instance, Requests: []*repb.BatchUpdateBlobsRequest_Request{
		{Digest: d.Proto(), Data: []byte("new " + instance)},
	}})
	note("BatchUpdateBlobs", server.WriteCAS, err)
	_, err = upload(t, s, instance+"/uploads/u/blobs/"+d.String(), "new "+instance)
	note("Write", server.WriteCAS, err)
	_, err = s.bytes.QueryWriteStatus(ctx, &bspb.QueryWriteStatusRequest{ResourceName: instance + "/uploads/u/blobs/" + d.String()})
	note("QueryWriteStatus", server.WriteCAS, err)
	_, err = s.cas.SpliceBlob(ctx, &repb.SpliceBlobRequest{InstanceName: instance, BlobDigest: there.Proto(), ChunkDigests: []*repb.Digest{there.Proto()}})
	note("SpliceBlob", server.WriteCAS, err)
	note("RegisterChunkMapping", server.WriteCAS, register(t, s, &repb.RegisterChunkMappingRequest{
		InstanceName: instance, BlobDigest: there.Proto(), ChunkDigests: []*repb.Digest{there.Proto()},
	}))
	_, err = s.ac.UpdateActionResult(ctx, &repb.UpdateActionResultRequest{
		InstanceName: instance, ActionDigest: of("another").Proto(), ActionResult: &repb.ActionResult{},
	})
	note("UpdateActionResult", server.WriteActions, err)
	return all
}

func register(t *testing.T, s *served, reqs ...*repb.RegisterChunkMappingRequest) error {
	stream, err := s.cas.RegisterChunkMapping(t.Context())
	require.NoError(t, err)
	for _, r := range reqs {
		if stream.Send(r) != nil {
			break
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// TestRights calls every method on instances with every set of rights, and looks at what was stored.
func TestRights(t *testing.T) {
	all := tiers(t)
	s := dialWith(t, all)
	for _, name := range []string{"reader", "a/writer", "a/b/trusted", "stranger"} {
		i := all[name]
		for method, c := range calls(t, s, name) {
			_, err := all.Instance(t.Context(), name, c.need)
			require.Equal(t, status.Code(err), status.Code(c.err), "%s on %s: %v", method, name, c.err)
		}
		_, newThere := i.store.GetActionResult(t.Context(), of("another"))
		missing, err := i.store.FindMissing(t.Context(), []digest.Digest{of("new " + name)})
		require.NoError(t, err)
		require.Equal(t, len(i.may) < 2, len(missing) == 1, name)
		require.Equal(t, len(i.may) < 3, newThere != nil, name)
	}
	_, err := s.cas.FindMissingBlobs(t.Context(), &repb.FindMissingBlobsRequest{InstanceName: "unknown"})
	requireCode(t, codes.InvalidArgument, err, "no instance")
}

// TestReadersStoreNothing: to ask for a chunk mapping makes the server store chunks, but not for those who may not.
func TestReadersStoreNothing(t *testing.T) {
	m := memory.New()
	large := string(random(1, 3<<20))
	d := put(t, m, large)
	s := dialWith(t, rights{"i": {m, []server.Access{server.Read}}})
	_, err := s.cas.SplitBlob(t.Context(), &repb.SplitBlobRequest{InstanceName: "i", BlobDigest: d.Proto()})
	requireCode(t, codes.NotFound, err, d.Hash())
	writer := dialWith(t, rights{"i": {m, []server.Access{server.Read, server.WriteCAS}}})
	got, err := writer.cas.SplitBlob(t.Context(), &repb.SplitBlobRequest{InstanceName: "i", BlobDigest: d.Proto()})
	require.NoError(t, err)
	require.Greater(t, len(got.GetChunkDigests()), 2)
	_, err = s.cas.SplitBlob(t.Context(), &repb.SplitBlobRequest{InstanceName: "i", BlobDigest: d.Proto()})
	requireCode(t, codes.NotFound, err, d.Hash())
}

// TestInstancesShareNothing: what one holds another lacks.
func TestInstancesShareNothing(t *testing.T) {
	all := tiers(t)
	s := dialWith(t, all)
	for _, name := range []string{"reader", "a/writer", "a/b/trusted"} {
		got, err := readAll(t, s, name+"/blobs/"+of("there "+name).String(), 0, 0)
		require.NoError(t, err)
		require.Equal(t, "there "+name, got)
		_, err = readAll(t, s, name+"/blobs/"+of("there stranger").String(), 0, 0)
		requireCode(t, codes.NotFound, err, of("there stranger").Hash())
		ar, err := s.ac.GetActionResult(t.Context(), &repb.GetActionResultRequest{InstanceName: name, ActionDigest: of("action").Proto()})
		require.NoError(t, err)
		require.Equal(t, name, string(ar.GetStdoutRaw()))
	}
}

func TestCapabilitiesAreTheCallers(t *testing.T) {
	s := dialWith(t, tiers(t))
	for name, want := range map[string]struct{ update, splice bool }{
		"reader": {}, "a/writer": {splice: true}, "a/b/trusted": {update: true, splice: true},
	} {
		got, err := s.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{InstanceName: name})
		require.NoError(t, err)
		c := got.GetCacheCapabilities()
		require.Equal(t, want.update, c.GetActionCacheUpdateCapabilities().GetUpdateEnabled(), name)
		require.Equal(t, want.splice, c.GetSpliceBlobSupport(), name)
		require.True(t, c.GetSplitBlobSupport())
	}
	_, err := s.caps.GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{InstanceName: "stranger"})
	require.Equal(t, codes.PermissionDenied, status.Code(err))
}

func TestHTTPRights(t *testing.T) {
	all := tiers(t)
	s := httptest.NewServer(server.HTTP(all))
	t.Cleanup(s.Close)
	w := &web{s, nil}
	ar, err := proto.Marshal(&repb.ActionResult{StdoutRaw: []byte("x")})
	require.NoError(t, err)
	for name, i := range map[string]int{"stranger": 0, "reader": 1, "a/writer": 2, "a/b/trusted": 3} {
		for n, call := range []struct {
			method, path, body string
			ok                 int
		}{
			{"GET", "/cas/" + of("there "+name).Hash(), "", 200},
			{"PUT", "/cas/" + of("x").Hash(), "x", 201},
			{"PUT", "/ac/" + of("x").Hash(), string(ar), 201},
		} {
			code, says, _ := w.do(t, call.method, "/"+name+call.path, bytes.NewReader([]byte(call.body)))
			want := http.StatusForbidden
			if n < i {
				want = call.ok
			}
			require.Equal(t, want, code, "%s %s: %s", call.method, name, says)
		}
	}
}

func TestHealth(t *testing.T) {
	g := grpc.NewServer(server.Options()...)
	server.Register(g, server.Single(memory.New(), memory.New()))
	h := server.RegisterHealth(g)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	check := func(service string) healthpb.HealthCheckResponse_ServingStatus {
		resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		return resp.GetStatus()
	}
	for _, service := range []string{"", "build.bazel.remote.execution.v2.ContentAddressableStorage", "google.bytestream.ByteStream"} {
		require.Equal(t, healthpb.HealthCheckResponse_SERVING, check(service))
	}
	h.Shutdown()
	require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, check(""))

	stream, err := rpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&rpb.ServerReflectionRequest{MessageRequest: &rpb.ServerReflectionRequest_ListServices{}}))
	resp, err := stream.Recv()
	require.NoError(t, err)
	var names []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	require.Contains(t, strings.Join(names, " "), "build.bazel.remote.execution.v2.ActionCache")
}
