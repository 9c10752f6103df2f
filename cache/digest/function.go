package digest

import (
	"crypto/sha256"
	"fmt"
	"hash"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/zeebo/blake3"
)

// Size is the length of a hash in bytes, by every function here.
const Size = 32

// Function is a digest function. The zero value is none.
type Function uint8

// The functions that digests are made by. The numbers stand in files: they never change.
const (
	SHA256 Function = 1
	BLAKE3 Function = 2
)

// Functions lists them all.
var Functions = []Function{SHA256, BLAKE3}

// functions says how each is computed and called.
var functions = [...]struct {
	name  string // in ByteStream's resource names, lower case as REAPI says
	proto repb.DigestFunction_Value
	sum   func([]byte) [Size]byte
	make  func() hash.Hash
	empty [Size]byte
}{
	// What is read as the zero Digest matches nothing, whatever it is hashed by.
	0:      {"no function", repb.DigestFunction_UNKNOWN, nil, sha256.New, [Size]byte{}},
	SHA256: {"sha256", repb.DigestFunction_SHA256, sha256.Sum256, sha256.New, sha256.Sum256(nil)},
	BLAKE3: {"blake3", repb.DigestFunction_BLAKE3, blake3.Sum256, func() hash.Hash { return blake3.New() }, blake3.Sum256(nil)},
}

var byName = map[string]Function{"sha256": SHA256, "blake3": BLAKE3}

// FunctionNamed returns the function that ByteStream's resource names call name.
func FunctionNamed(name string) (Function, bool) {
	f, ok := byName[name]
	return f, ok
}

// FunctionFromProto returns the function that a request names. An absent value means sha256: REAPI has the hash's length
// decide then, and both functions here have the same.
func FunctionFromProto(v repb.DigestFunction_Value) (Function, error) {
	if v == repb.DigestFunction_UNKNOWN {
		return SHA256, nil
	}
	for _, f := range Functions {
		if f.Proto() == v {
			return f, nil
		}
	}
	return 0, fmt.Errorf("%w: digest function %s is not supported: use SHA256 or BLAKE3", ErrInvalid, v)
}

// String returns the function's name in lower case.
func (f Function) String() string { return functions[f].name }

// Proto returns REAPI's value for the function.
func (f Function) Proto() repb.DigestFunction_Value { return functions[f].proto }

// FromBytes returns the digest of b.
func (f Function) FromBytes(b []byte) Digest {
	return Digest{hash: functions[f].sum(b), size: int64(len(b)), fn: f}
}

// NewHasher returns a Hasher of the empty blob.
func (f Function) NewHasher() *Hasher { return &Hasher{h: functions[f].make(), fn: f} }
