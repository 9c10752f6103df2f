package digest_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/stretchr/testify/require"

	"github.com/pexpress/pexpress/cache/digest"
)

// abc is the sha256 of "abc", from FIPS 180-2.
const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

func TestFromBytes(t *testing.T) {
	d := digest.FromBytes([]byte("abc"))
	require.Equal(t, abc, d.Hash())
	require.EqualValues(t, 3, d.Size())
	require.Equal(t, abc+"/3", d.String())
	require.Equal(t, abc[:12], d.Short())
	require.False(t, d.IsZero())
	require.Equal(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/0", digest.Empty.String())
}

func TestParse(t *testing.T) {
	for _, size := range []int64{0, 3, math.MaxInt64} {
		d, err := digest.Parse(fmt.Sprintf("%s/%d", abc, size))
		require.NoError(t, err)
		require.Equal(t, abc, d.Hash())
		require.Equal(t, size, d.Size())
	}
}

func TestParseRefuses(t *testing.T) {
	upper := strings.ToUpper(abc)
	for _, test := range []struct{ name, in, want string }{
		{"empty", "", "is not HASH/SIZE"},
		{"no size", abc, "is not HASH/SIZE"},
		{"size left out", abc + "/", "is not a size in bytes"},
		{"plus", abc + "/+3", "is not a size in bytes"},
		{"leading zero", abc + "/03", "is not a size in bytes"},
		{"hexadecimal size", abc + "/0x3", "is not a size in bytes"},
		{"too large", abc + "/9223372036854775808", "is not a size in bytes"},
		{"negative", abc + "/-3", "negative size"},
		{"negative zero", abc + "/-0", "is not a size in bytes"},
		{"short hash", abc[1:] + "/3", "has 63 characters"},
		{"long hash", abc + "0/3", "has 65 characters"},
		{"upper case", upper + "/3", "is not lower-case hexadecimal"},
		{"no hexadecimal digit", "g" + abc[1:] + "/3", "is not lower-case hexadecimal"},
		{"path", strings.Repeat("../", 21) + "x/3", "is not a size in bytes"},
		{"more", abc + "/3/4", "is not a size in bytes"},
		{"space", abc + "/3 ", "is not a size in bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := digest.Parse(test.in)
			require.ErrorIs(t, err, digest.ErrInvalid)
			require.ErrorContains(t, err, test.want)
			require.True(t, d.IsZero())
		})
	}
}

func TestProto(t *testing.T) {
	d := digest.FromBytes([]byte("abc"))
	back, err := digest.FromProto(d.Proto())
	require.NoError(t, err)
	require.Equal(t, d, back)
	require.Nil(t, digest.Digest{}.Proto())

	for _, p := range []*repb.Digest{nil, {}, {Hash: abc, SizeBytes: -1}, {Hash: abc[2:], SizeBytes: 1}} {
		_, err := digest.FromProto(p)
		require.ErrorIs(t, err, digest.ErrInvalid)
	}
}

func TestText(t *testing.T) {
	type doc struct{ A, B digest.Digest }
	in := doc{A: digest.FromBytes([]byte("abc"))}
	b, err := json.Marshal(in)
	require.NoError(t, err)
	require.JSONEq(t, `{"A":"`+abc+`/3","B":""}`, string(b))
	var out doc
	require.NoError(t, json.Unmarshal(b, &out))
	require.Equal(t, in, out)
	require.ErrorIs(t, json.Unmarshal([]byte(`{"A":"abc"}`), &out), digest.ErrInvalid)
}

func TestCompare(t *testing.T) {
	small, err := digest.New(abc, 3)
	require.NoError(t, err)
	large, err := digest.New(abc, math.MaxInt64)
	require.NoError(t, err)
	require.Zero(t, small.Compare(small))
	require.Negative(t, small.Compare(large))
	require.Positive(t, large.Compare(small))
	require.Positive(t, digest.Empty.Compare(large), "the hash comes before the size")
}

// TestMarshal pins the deterministic encoding, the bytes of which were also written out by hand: the digests of
// Actions and Directories rest on it.
func TestMarshal(t *testing.T) {
	b, d, err := digest.Marshal(&repb.Directory{Files: []*repb.FileNode{
		{Name: "a", Digest: digest.Empty.Proto(), IsExecutable: true},
	}})
	require.NoError(t, err)
	require.Equal(t, digest.FromBytes(b), d)
	require.Equal(t, "83354adb04a11fb43075ec5478c365c5673448bec8fc3c65d2ce7ebbc9a8ac32/75", d.String())
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "/", abc, abc + "/3", abc + "/-1", abc + "/03", strings.ToUpper(abc) + "/3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := digest.Parse(s)
		if err != nil {
			require.ErrorIs(t, err, digest.ErrInvalid)
			require.True(t, d.IsZero())
			return
		}
		require.Equal(t, s, d.String(), "there is one way to write a digest")
		back, err := digest.FromProto(d.Proto())
		require.NoError(t, err)
		require.Equal(t, d, back)
		require.NotContains(t, d.Hash(), "/")
	})
}
