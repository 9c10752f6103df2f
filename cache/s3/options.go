package s3

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Freshness is R of the package comment: the age at which a node's view of the manifest is too old to say that a blob is
// present. Every node of every version uses the same, since the collector counts on it.
const Freshness = 60 * time.Second

// longestCommit is L of the package comment: how long after its pack a tail may be written. Every node of every version
// uses the same, whatever it promises: a tail that was void must not count again when a retention is raised.
const longestCommit = 3 * time.Hour

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

	errReadOnly = errors.New("the bucket was opened for reading only")
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
	// Wrap, if set, returns what requests go through in place of the given transport, to measure them.
	Wrap func(http.RoundTripper) http.RoundTripper

	// Retention is the promise: what FindMissing or GetAction reported present stays readable for this long. 0 means
	// DefaultRetention. It is recorded in the bucket, and the longest that any node ever promised counts. Opened
	// ReadOnly, it must not be longer than what is recorded, and 0 is that.
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

	shardsFrom  int64         // entries; 0 is largeIndex
	commitLimit time.Duration // 0 is longestCommit
	backoff     time.Duration // before the second try, at most; 0 is 100 ms
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() Options {
	switch {
	case o.Retention > 0:
	case o.ReadOnly:
		o.Retention = 0 // what others promised is what it may promise
	default:
		o.Retention = DefaultRetention
	}
	if o.TouchAfter <= 0 {
		o.TouchAfter = 12 * time.Hour
	}
	if o.Linger == 0 {
		o.Linger = 10 * time.Millisecond
	}
	if o.CompactAt == 0 {
		o.CompactAt = 64
	}
	if o.shardsFrom == 0 {
		o.shardsFrom = largeIndex
	}
	if o.commitLimit == 0 {
		o.commitLimit = longestCommit
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
