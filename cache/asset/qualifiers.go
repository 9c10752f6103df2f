package asset

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Names of the qualifiers that are understood here. The others are Bazel's.
const (
	checksumSRI     = "checksum.sri"
	canonicalID     = "bazel.canonical_id"
	subdirectory    = "directory"
	authHeaders     = "bazel.auth_headers"
	httpHeader      = "http_header:"
	httpHeaderOfURL = "http_header_url:"
)

// qualifiers are those of a request, parsed.
type qualifiers struct {
	key     []string // of those that tell assets apart, sorted
	sums    integrity
	headers []http.Header // for each URI
	secret  bool          // there are headers

	directory string // of the archive that is fetched, "" for all of it
	unknown   []string
}

// limits of what is parsed.
const (
	maxURIs       = 100
	maxQualifiers = 100
)

// parseQualifiers reads the qualifiers of a request for these URIs. Its errors quote no values, which may be secret.
func parseQualifiers(uris []string, list []*assetpb.Qualifier) (*qualifiers, error) {
	if len(uris) == 0 || len(uris) > maxURIs || len(list) > maxQualifiers {
		return nil, status.Errorf(codes.InvalidArgument, "the request has %d URIs and %d qualifiers: send 1 to %d and at most %d",
			len(uris), len(list), maxURIs, maxQualifiers)
	}
	q := &qualifiers{headers: make([]http.Header, len(uris))}
	for i := range q.headers {
		q.headers[i] = http.Header{}
	}
	seen := map[string]bool{}
	// The less special ones come first, so that they are overwritten.
	order := slices.SortedStableFunc(slices.Values(list), func(a, b *assetpb.Qualifier) int { return cmp.Compare(rank(a), rank(b)) })
	for _, p := range order {
		if seen[p.GetName()] {
			return nil, status.Errorf(codes.InvalidArgument, "qualifier %.200q stands there twice", p.GetName())
		}
		seen[p.GetName()] = true
		if err := q.add(uris, p.GetName(), p.GetValue()); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "qualifier %.200q: %v", p.GetName(), err)
		}
	}
	slices.Sort(q.key)
	return q, nil
}

// rank orders qualifiers from those for all URIs to those for one.
func rank(q *assetpb.Qualifier) int {
	switch {
	case q.GetName() == authHeaders:
		return 1
	case strings.HasPrefix(q.GetName(), httpHeader):
		return 2
	case strings.HasPrefix(q.GetName(), httpHeaderOfURL):
		return 3
	}
	return 0
}

func (q *qualifiers) add(uris []string, name, value string) error {
	of, oneURI := strings.CutPrefix(name, httpHeaderOfURL)
	header, allURIs := strings.CutPrefix(name, httpHeader)
	switch {
	case name == authHeaders:
		return q.addAuth(uris, value)
	case oneURI:
		index, header, _ := strings.Cut(of, ":")
		i, err := strconv.ParseUint(index, 10, 31)
		if err != nil || int(i) >= len(uris) {
			return fmt.Errorf("it is not %sINDEX:NAME with the index of a URI", httpHeaderOfURL)
		}
		return q.setHeader(int(i), header, value)
	case allURIs:
		for i := range uris {
			if err := q.setHeader(i, header, value); err != nil {
				return err
			}
		}
		return nil
	case name == checksumSRI:
		var err error
		if q.sums, err = parseSRI(value); err != nil {
			return err
		}
	case name == subdirectory:
		q.directory = strings.TrimSuffix(value, "/")
	case name != canonicalID:
		q.unknown = append(q.unknown, name)
	}
	q.key = append(q.key, strconv.Quote(name)+"="+strconv.Quote(value))
	return nil
}

// addAuth reads Bazel's map from URI to headers, whose values are texts or, in later versions, lists of them.
func (q *qualifiers) addAuth(uris []string, value string) error {
	var all map[string]map[string]json.RawMessage
	if json.Unmarshal([]byte(value), &all) != nil {
		return fmt.Errorf("it is not a JSON object of objects")
	}
	for i, uri := range uris {
		for name, raw := range all[uri] {
			var one string
			var many []string
			if json.Unmarshal(raw, &one) == nil {
				many = []string{one}
			} else if json.Unmarshal(raw, &many) != nil {
				return fmt.Errorf("the value of a header is neither a text nor a list of texts")
			}
			if err := q.setHeader(i, name, many...); err != nil {
				return err
			}
		}
	}
	return nil
}

// kept are headers that are not for clients to choose: they frame the request, or would make the bytes others.
var kept = []string{
	"Host", "Connection", "Content-Length", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "Expect", "Range", "Accept-Encoding",
	"If-Range", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization",
}

func (q *qualifiers) setHeader(i int, name string, values ...string) error {
	name = http.CanonicalHeaderKey(name)
	if !httpguts.ValidHeaderFieldName(name) || slices.Contains(kept, name) {
		return fmt.Errorf("it sets no header that may be set")
	}
	for _, v := range values {
		if !httpguts.ValidHeaderFieldValue(v) {
			return fmt.Errorf("it is no value of a header")
		}
	}
	q.headers[i][name] = values
	q.secret = true
	return nil
}

// supported refuses qualifiers that an origin's content cannot be held against, as the API says it.
func (q *qualifiers) supported(k kind) error {
	unknown := q.unknown
	if k == blob && q.directory != "" {
		unknown = append(unknown, subdirectory)
	}
	if len(unknown) == 0 {
		return nil
	}
	details := &errdetails.BadRequest{}
	for _, name := range unknown {
		details.FieldViolations = append(details.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: "qualifiers.name", Description: fmt.Sprintf("%.200q not supported", name),
		})
	}
	s := status.Newf(codes.InvalidArgument, "nothing was pushed with these qualifiers, and to fetch the asset %.200q not supported", unknown)
	if d, err := s.WithDetails(details); err == nil {
		s = d
	}
	return s.Err()
}
