package s3

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
)

// shardCount is the number of shards of an index that is large enough to have any: by the hash's first byte.
const shardCount = 256

// manifest is the one object that is ever replaced, always by a swap that checks that nobody else did. What it names is
// the index: entries of its runs, its shards and of the tails in the bucket, without those in condemned packs and those
// that a purge rule covers. It is JSON, so that people can read it, and ends in a line with its XXH64.
type manifest struct {
	Version    int    `json:"version"`
	Generation uint64 `json:"generation"`
	Swap       id     `json:"swap"` // of the writer: whoever does not know whether its swap was done looks for it here
	// Retention is the longest promise that any node ever made, in seconds.
	Retention int64 `json:"retention"`
	// Floor: a node whose view is of a generation before this one missed a condemnation that is no longer listed, and
	// must forget what it knows.
	Floor uint64 `json:"floor"`
	// Major counts the folds into shards. Folded are the tails and runs that the last of them took up.
	Major  uint64  `json:"major"`
	Folded []id    `json:"folded,omitempty"`
	Shards []part  `json:"shards,omitempty"` // none or shardCount; one without entries has no object
	Runs   []run   `json:"runs,omitempty"`
	Dying  []dying `json:"condemned,omitempty"`
	Rules  []rule  `json:"purged,omitempty"`
	Roots  []root  `json:"roots,omitempty"`
}

// part is an immutable file of entries.
type part struct {
	ID      id    `json:"id"`
	Entries int64 `json:"n"`
	Bytes   int64 `json:"bytes"`
}

// run is a file that tails were folded into. Whoever has read all Sources has no need to read it.
type run struct {
	part
	Sources []id `json:"sources,omitempty"`
}

// dying is a set of packs that were condemned together, in the manifest of the generation given. Date is S3's clock
// then or somewhat later, and 0 in that very manifest: its own LastModified says it.
type dying struct {
	Generation uint64 `json:"generation"`
	Date       int64  `json:"date,omitempty"`
	Bytes      int64  `json:"bytes"`
	Packs      ids    `json:"packs"`
}

// rule voids the ActionCache entries that it matches, wherever they are found.
type rule struct {
	Principal  string `json:"principal,omitempty"`
	Any        bool   `json:"anyPrincipal,omitempty"`
	Namespace  string `json:"namespace,omitempty"`
	Everywhere bool   `json:"everyNamespace,omitempty"`
	Since      int64  `json:"since"` // UnixNano
	Until      int64  `json:"until"`
}

func (r *rule) match(namespace, principal string, t int64) bool {
	return t >= r.Since && t <= r.Until && (r.Any || r.Principal == principal) && (r.Everywhere || r.Namespace == namespace)
}

// root pins the entries that the object root/<id> lists.
type root struct {
	ID        id     `json:"id"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Digests   int    `json:"digests"`
	Added     int64  `json:"added"`
}

// ids is a list of ids that takes 22 characters each.
type ids []id

// MarshalJSON implements json.Marshaler.
func (s ids) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 16*len(s))
	for _, i := range s {
		b = append(b, i[:]...)
	}
	return json.Marshal(b)
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *ids) UnmarshalJSON(text []byte) error {
	var b []byte
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}
	if len(b)%16 != 0 {
		return fmt.Errorf("%w: a list of ids of %d bytes", errFormat, len(b))
	}
	*s = nil
	for ; len(b) > 0; b = b[16:] {
		*s = append(*s, id(b[:16]))
	}
	return nil
}

// manifestVersion goes up when an older node could no longer act rightly on what a newer one writes.
const manifestVersion = 1

func (m *manifest) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return sealManifest(b), nil
}

// sealManifest adds the line with the checksum.
func sealManifest(b []byte) []byte {
	sum := sumOf(b)
	return append(hex.AppendEncode(append(b, '\n'), sum), '\n')
}

func sumOf(b []byte) []byte { return binary.BigEndian.AppendUint64(nil, xxhash.Sum64(b)) }

func decodeManifest(b []byte) (*manifest, error) {
	body, sum, ok := bytes.Cut(b, []byte{'\n'})
	if !ok || string(sum) != hex.EncodeToString(sumOf(body))+"\n" {
		return nil, fmt.Errorf("manifest: %w: the checksum at its end is another", errFormat)
	}
	m := new(manifest)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("manifest: %w: %w", errFormat, err)
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("manifest: version %d is not the %d that this program reads: update it", m.Version, manifestVersion)
	}
	if len(m.Shards) != 0 && len(m.Shards) != shardCount {
		return nil, fmt.Errorf("manifest: %w: %d shards", errFormat, len(m.Shards))
	}
	return m, nil
}

// clone returns a copy whose lists can be changed without changing m's.
func (m *manifest) clone() *manifest {
	c := *m
	c.Folded, c.Shards = append([]id(nil), m.Folded...), append([]part(nil), m.Shards...)
	c.Runs, c.Dying = append([]run(nil), m.Runs...), append([]dying(nil), m.Dying...)
	c.Rules, c.Roots = append([]rule(nil), m.Rules...), append([]root(nil), m.Roots...)
	return &c
}

// condemned returns the packs that m condemns.
func (m *manifest) condemned() map[id]bool {
	set := map[id]bool{}
	for _, d := range m.Dying {
		for _, p := range d.Packs {
			set[p] = true
		}
	}
	return set
}

// retention is the promise that everyone keeps who deletes.
func (m *manifest) retention() time.Duration { return time.Duration(m.Retention) * time.Second }

// indexed returns the number of entries in runs and in shards.
func (m *manifest) indexed() (runs, shards int64) {
	for _, r := range m.Runs {
		runs += r.Entries
	}
	for _, s := range m.Shards {
		shards += s.Entries
	}
	return runs, shards
}
