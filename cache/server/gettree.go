package server

import (
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pexpress/pexpress/cache/digest"
	"github.com/pexpress/pexpress/cache/merkle"
)

// treePage is how many Directories an answer of GetTree holds unless fewer are asked for.
const treePage = 1000

// GetTree implements repb.ContentAddressableStorageServer. A Directory that stands in the tree several times is sent
// once, as the client encoded it. One that is missing is left out, as REAPI says, unless it is the root.
//
// A page token is the digest of the last Directory sent. The order is the tree's own, so that it names the same place
// on every node and at any time, also when a Directory has gone or come meanwhile.
func (s *server) GetTree(req *repb.GetTreeRequest, stream grpc.ServerStreamingServer[repb.GetTreeResponse]) error {
	ctx := stream.Context()
	inst, err := s.instance(ctx, req.GetInstanceName(), Read)
	if err != nil {
		return err
	}
	fn, err := function(req.GetDigestFunction())
	if err != nil {
		return err
	}
	root, err := fn.FromProto(req.GetRootDigest())
	if err != nil {
		return fail(err)
	}
	if err := checkMessage(root); err != nil {
		return err
	}
	p := &pager{stream: stream, size: treePage}
	if n := int(req.GetPageSize()); n > 0 && n < p.size {
		p.size = n
	}
	if token := req.GetPageToken(); token != "" {
		if p.after, err = digest.Parse(token); err != nil || p.after.Function() != fn {
			return errToken
		}
	}
	release, err := s.budget.take(ctx, 2*MaxBatch)
	if err != nil {
		return err
	}
	defer release()
	err = merkle.Visit(ctx, inst.CAS, root, merkle.DefaultBounds, merkle.Visitor{
		Directory: p.add,
		Missing: func(d digest.Digest, err error) error {
			if d == root {
				return err
			}
			return nil
		},
	})
	if err != nil {
		return fail(stored(err))
	}
	return p.finish()
}

var errToken = status.Error(codes.InvalidArgument, "the page token is not one that this server made for this tree")

// pager sends Directories in pages. A page is sent when it is known that another one follows.
type pager struct {
	stream grpc.ServerStreamingServer[repb.GetTreeResponse]
	size   int           // Directories of a page
	after  digest.Digest // the last one that the client has; zero once it has passed
	page   []byte        // encoded
	n      int
	last   digest.Digest
}

// directories is the number of GetTreeResponse's field.
const directories protowire.Number = 1

func (p *pager) add(d merkle.Directory) error {
	if !p.after.IsZero() {
		if d.Digest == p.after {
			p.after = digest.Digest{}
		}
		return nil
	}
	if p.n == p.size || p.n > 0 && len(p.page)+len(d.Data) > MaxBatch {
		if err := p.send(p.last.String()); err != nil {
			return err
		}
	}
	p.page = protowire.AppendTag(p.page, directories, protowire.BytesType)
	p.page = protowire.AppendBytes(p.page, d.Data)
	p.n++
	p.last = d.Digest
	return nil
}

func (p *pager) finish() error {
	if !p.after.IsZero() {
		return errToken
	}
	if p.n == 0 {
		return nil
	}
	return p.send("")
}

// send sends the page. The Directories were never decoded: a message carries fields that are already encoded as unknown
// ones, which on the wire are the same.
func (p *pager) send(token string) error {
	resp := &repb.GetTreeResponse{NextPageToken: token}
	resp.ProtoReflect().SetUnknown(p.page)
	if err := p.stream.Send(resp); err != nil {
		return err
	}
	p.page, p.n = p.page[:0], 0
	return nil
}
