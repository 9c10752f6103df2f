package s3

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/pexpress/pexpress/cache/digest"
)

// Freshness is R of the package comment: the age at which a node's view of the manifest is too old to say that a blob is
// present. Every node of every version uses the same, since the collector counts on it.
const Freshness = 60 * time.Second

// DefaultRetention is how long a blob that was reported present stays readable, at least.
const DefaultRetention = 3 * time.Hour

// Errors that callers branch on. None of them is a miss; a server answers UNAVAILABLE to ErrStale.
var (
	// ErrStale says that the node's view of the manifest is older than Freshness and could not be renewed, so that it must
	// not say "present". Asking again helps as soon as the bucket can be reached.
	ErrStale = errors.New("the view of the bucket is too old to answer from")
	// ErrNoConditionalPut says that the bucket ignores or refuses If-Match, without which nothing may be deleted.
	ErrNoConditionalPut = errors.New("the bucket does not support conditional puts (If-Match)")
	// ErrIndexLost says that the index names objects that are gone, or that there are packs and no manifest. Rebuild
	// makes the index anew from the packs.
	ErrIndexLost = errors.New("the index in the bucket is damaged: rebuild it from the packs")
)

// Options say where the bucket is and what is promised. Bucket is needed; the zero value of all else is a sound default.
type Options struct {
	Bucket    string
	Prefix    string // of every key, without a slash at its end; "" is the bucket's root
	Endpoint  string // URL of an S3-compatible service; "" is AWS
	Region    string // "" leaves it to the environment, and is us-east-1 with an Endpoint
	PathStyle bool   // address objects as endpoint/bucket/key
	SSE       string // server-side encryption of all that is put: "AES256", "aws:kms", or "" for the bucket's own
	SSEKey    string // with aws:kms, the key's id

	// Credentials override the default chain: environment, shared files, web identity (IRSA), container, instance.
	Credentials aws.CredentialsProvider
	Transport   http.RoundTripper // "" is the SDK's own

	// Retention is the promise: what FindMissing or GetAction reported present stays readable for this long. 0 means
	// DefaultRetention. It is recorded in the bucket, and the longest that any node ever promised counts.
	Retention time.Duration
	// TouchAfter is the age past which a use of an entry is recorded, so that gc ranks it as used. 0 means 12 hours.
	TouchAfter time.Duration
	// Linger bounds how long a small blob waits for others to share its pack. 0 means 10 ms, less than 0 not at all.
	Linger time.Duration
	// CompactAt is the number of tails from which a node folds them. 0 means 64, less than 0 never.
	CompactAt int
	// ReadOnly opens the bucket without writing to it at all, for callers with the right to read only.
	ReadOnly bool
	// Manual leaves out all work in the background: no refresh, no compaction, no flush of touches but at Close.
	Manual bool

	Now func() time.Time // nil is time.Now
	Log *slog.Logger     // nil is silence
}

// Stats are counters since Open, and the index as this node knows it.
type Stats struct {
	Entries     int64            // blobs and actions in what is loaded of the index
	Bytes       int64            // stored, in all packs that are known and not condemned
	Packs       int              // known, condemned ones among them
	Condemned   int              // packs condemned and not deleted yet
	Tails       int              // not folded yet, when the bucket was last looked at
	Shards      int              // named by the manifest
	ShardsReady int              // of them, those loaded
	IndexMemory int64            // bytes that the index takes in this process
	Generation  uint64           // of the manifest
	ViewAge     time.Duration    // how old the view of the manifest is
	Hits        int64            // lookups answered from memory
	Looks       int64            // lookups that had to look at the bucket, sharing refreshes
	Refreshes   int64            // LISTs of tail/
	Compactions int64            // by this node
	Evictions   int64            // records condemned by this node's gc
	SetAside    int64            // records whose bytes were wrong
	Requests    map[string]int64 // to S3, by operation: "PUT", "GET", "LIST", "DELETE", ...
	BytesIn     int64            // read from S3
	BytesOut    int64            // written to S3
	Dollars     float64          // what Requests cost at AWS's list price (us-east-1)
}

// GCOptions say how much may stay. Zero is no limit; with neither, gc only finishes what an earlier one condemned.
type GCOptions struct {
	MaxBytes int64         // stored bytes to come down to
	MaxAge   time.Duration // since an entry was last written or used
	DryRun   bool          // say what would be condemned, and write nothing
}

// GCReport says what gc did.
type GCReport struct {
	LiveBytes        int64 // stored and not condemned, before
	CondemnedPacks   int   // now
	CondemnedRecords int64
	CondemnedBytes   int64
	MovedRecords     int64 // still wanted, so copied out of a condemned pack
	DeletedPacks     int   // condemned long enough ago
	DeletedBytes     int64
	SweptObjects     int // of crashed commits and replaced indexes
	Waiting          int // packs condemned that must still stay readable
}

// Root is a pinned deployment.
type Root struct {
	Namespace string
	Name      string
	Digests   int
	Added     time.Time
}

// PurgeFilter chooses ActionCache entries. At least one of Principal and Since must be set.
type PurgeFilter struct {
	Principal string    // who wrote them; "" is everyone
	Since     time.Time // written at or after
	Namespace string
	// AllNamespaces takes Namespace for unset: "" is a namespace like any other.
	AllNamespaces bool
	DryRun        bool
}

// PurgeReport says what was, or would be, removed.
type PurgeReport struct {
	Entries int64
	Actions []digest.Digest // the first 1000 of them
}

// ScrubReport says what reading every pack found.
type ScrubReport struct {
	Packs, Records, Bytes int64
	BadRecords            int64
	BadPacks              int // with at least one bad record, or gone
	Rescued               int64
	Bad                   []string // the first 1000 of them, each naming digest, object and what is wrong
}

// VerifyReport says whether the index and the objects agree.
type VerifyReport struct {
	Packs    int   // that the index names
	Entries  int64 // that it holds
	Missing  []string
	WrongLen []string
	Strays   int // packs that no index names, a crashed commit's
	StrayLen int64
}

// RebuildReport says what was found in the packs.
type RebuildReport struct {
	Packs   int
	Records int64
	Bad     []string
}

// Store is the bucket as one node sees it. It is safe for concurrent use.
type Store struct{}

// Open connects to the bucket, which must exist, and reads the manifest and the tails.
func Open(ctx context.Context, o Options) (*Store, error) { return nil, errors.ErrUnsupported }

// OpenBucket is Open on any Bucket.
func OpenBucket(ctx context.Context, b Bucket, o Options) (*Store, error) {
	return nil, errors.ErrUnsupported
}

// Rebuild makes the index anew from the packs alone, whatever there is of it, and swaps it in. Entries that were
// condemned or purged come back. No other node may run.
func Rebuild(ctx context.Context, o Options) (RebuildReport, error) {
	return RebuildReport{}, errors.ErrUnsupported
}

// Namespace returns the cache of that name, which need not exist before something is put.
func (s *Store) Namespace(name string) *Cache { return &Cache{s: s, name: name} }

// Refresh looks at the bucket now: tails of other nodes, then the manifest.
func (s *Store) Refresh(ctx context.Context) error { return errors.ErrUnsupported }

// Compact folds the tails into the index now.
func (s *Store) Compact(ctx context.Context) error { return errors.ErrUnsupported }

// GC condemns what is over the limits, and deletes what was condemned long enough ago.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	return GCReport{}, errors.ErrUnsupported
}

// AddRoot pins the digests: gc condemns none of them until RemoveRoot. It replaces a root of that name. An error that
// wraps cache.ErrNotFound names those that are absent or condemned already: put them again, then try again.
func (s *Store) AddRoot(ctx context.Context, namespace, name string, ds []digest.Digest) error {
	return errors.ErrUnsupported
}

// RemoveRoot unpins; a root that is not there is success.
func (s *Store) RemoveRoot(ctx context.Context, namespace, name string) error {
	return errors.ErrUnsupported
}

// Roots lists what is pinned.
func (s *Store) Roots(ctx context.Context) ([]Root, error) { return nil, errors.ErrUnsupported }

// Purge removes ActionCache entries by who wrote them and when. Other nodes obey within Freshness.
func (s *Store) Purge(ctx context.Context, f PurgeFilter) (PurgeReport, error) {
	return PurgeReport{}, errors.ErrUnsupported
}

// Scrub reads every pack and checks every record against its digest. Packs with a bad one are condemned after the good
// records were copied out of them, so that the bad ones read as missing and are uploaded again.
func (s *Store) Scrub(ctx context.Context) (ScrubReport, error) {
	return ScrubReport{}, errors.ErrUnsupported
}

// Verify compares the index with a listing of the objects.
func (s *Store) Verify(ctx context.Context) (VerifyReport, error) {
	return VerifyReport{}, errors.ErrUnsupported
}

// Stats returns counters and sizes. It makes no request.
func (s *Store) Stats() Stats { return Stats{} }

// Close ends the work in the background and writes the touches that are left. Puts under way end first.
func (s *Store) Close() error { return nil }
