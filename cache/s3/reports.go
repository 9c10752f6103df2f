package s3

import "time"

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
	Entries    int64
	Principals map[string]int64 // by who wrote them
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
