package provenance

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/pexpress/pexpress/cache/digest"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

func newSpec(change ...func(*codeserverpb.VersionSpec)) *codeserverpb.VersionSpec {
	s := &codeserverpb.VersionSpec{
		DepsRoot: digest.FromBytes([]byte("deps")).Proto(), SourceRoot: digest.FromBytes([]byte("source")).Proto(), Python: "3.11",
		Entry:   &codeserverpb.Entry{Preset: "module", Args: []string{"app"}},
		Env:     map[string]string{"A": "1", "B": "2"},
		Outputs: map[string]*repb.Digest{"ui": digest.FromBytes([]byte("ui")).Proto(), "data": digest.FromBytes([]byte("data")).Proto()},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func newDeploy() Deploy {
	return Deploy{
		Location: "staging", Spec: newSpec(), Lock: digest.FromBytes([]byte("lock")),
		Actions: map[string]digest.Digest{"deps.pex": digest.FromBytes([]byte("a")), "source.pex": digest.FromBytes([]byte("b"))},
	}
}

func newKeys(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return pub, priv
}

// TestSigned goes through the shape that docs/trust.md describes.
func TestSigned(t *testing.T) {
	pub, priv := newKeys(t)
	d := newDeploy()
	b, err := Sign(t.Context(), priv, d)
	require.NoError(t, err)
	again, err := Sign(t.Context(), priv, newDeploy())
	require.NoError(t, err)
	require.Equal(t, string(b), string(again), "the same deploy has the same envelope")
	other, _ := newKeys(t)
	v, err := NewVerifier([]ed25519.PublicKey{other, pub, pub})
	require.NoError(t, err)
	require.NoError(t, v.Verify(t.Context(), "staging", d.Spec, b))
	received := &codeserverpb.VersionSpec{}
	wire, err := proto.Marshal(d.Spec)
	require.NoError(t, err)
	require.NoError(t, proto.Unmarshal(wire, received))
	require.NoError(t, v.Verify(t.Context(), "staging", received, b))

	var e dsse.Envelope
	require.NoError(t, json.Unmarshal(b, &e))
	payload, err := e.DecodeB64Payload()
	require.NoError(t, err)
	_, name, err := digest.Marshal(d.Spec)
	require.NoError(t, err)
	hash := func(s string) string { return digest.FromBytes([]byte(s)).Hash() }
	id, err := KeyID(pub)
	require.NoError(t, err)
	require.Equal(t, id, e.Signatures[0].KeyID)
	require.JSONEq(t, `{
		"_type": "https://in-toto.io/Statement/v1",
		"subject": [
			{"name": "deps.pex", "digest": {"sha256": "`+hash("deps")+`"}},
			{"name": "source.pex", "digest": {"sha256": "`+hash("source")+`"}},
			{"name": "output data", "digest": {"sha256": "`+hash("data")+`"}},
			{"name": "output ui", "digest": {"sha256": "`+hash("ui")+`"}}
		],
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": {
			"buildDefinition": {
				"buildType": "https://github.com/pexpress/pexpress/blob/main/docs/trust.md#deploy-v1",
				"externalParameters": {"location": "staging", "version": "`+name.Hash()+`"},
				"resolvedDependencies": [
					{"name": "pylock.toml", "digest": {"sha256": "`+hash("lock")+`"}},
					{"name": "action of deps.pex", "digest": {"sha256": "`+hash("a")+`"}},
					{"name": "action of source.pex", "digest": {"sha256": "`+hash("b")+`"}}
				]
			},
			"runDetails": {"builder": {"id": "https://github.com/pexpress/pexpress"}}
		}
	}`, string(payload))
}

// TestForged tries what somebody may send who has no trusted key, or a signature for something else.
func TestForged(t *testing.T) {
	pub, priv := newKeys(t)
	strangerPub, stranger := newKeys(t)
	v, err := NewVerifier([]ed25519.PublicKey{pub})
	require.NoError(t, err)
	sign := func(key ed25519.PrivateKey, change func(*Deploy)) []byte {
		d := newDeploy()
		if change != nil {
			change(&d)
		}
		b, err := Sign(t.Context(), key, d)
		require.NoError(t, err)
		return b
	}
	good := sign(priv, nil)
	require.NoError(t, v.Verify(t.Context(), "staging", newSpec(), good))
	altered := func(change func(*dsse.Envelope)) []byte {
		var e dsse.Envelope
		require.NoError(t, json.Unmarshal(good, &e))
		change(&e)
		b, err := json.Marshal(e)
		require.NoError(t, err)
		return b
	}
	payloadOf := func(b []byte) string {
		var e dsse.Envelope
		require.NoError(t, json.Unmarshal(b, &e))
		return e.Payload
	}
	prod := func(d *Deploy) { d.Location = "prod" }
	signature := dsse.Signature{Sig: base64.StdEncoding.EncodeToString(make([]byte, 64))}
	for _, test := range []struct {
		name, want string
		envelope   []byte
	}{
		{"none", "it has no signature", nil},
		{"garbage", "not a DSSE envelope", []byte("\x00\xffgarbage")},
		{"empty object", `holds "", not application/vnd.in-toto+json`, []byte("{}")},
		{"null", `holds ""`, []byte("null")},
		{"a list", "not a DSSE envelope", []byte("[]")},
		{"unknown field", "unknown field", bytes.Replace(good, []byte(`{`), []byte(`{"x":1,`), 1)},
		{"truncated", "not a DSSE envelope", good[:len(good)-1]},
		{"half", "not a DSSE envelope", good[:len(good)/2]},
		{"with another after it", "something follows", append(bytes.Clone(good), good...)},
		{"huge", "more than the 262144 allowed", append(bytes.Clone(good), bytes.Repeat([]byte(" "), maxEnvelope)...)},
		{"other key", "no key that this codeserver trusts", sign(stranger, nil)},
		{"other key under a trusted key's name", "no key that this codeserver trusts", func() []byte {
			id, err := KeyID(pub)
			require.NoError(t, err)
			theirs, err := KeyID(strangerPub)
			require.NoError(t, err)
			return bytes.Replace(sign(stranger, nil), []byte(theirs), []byte(id), 1)
		}()},
		{"altered payload", "no key that this codeserver trusts", altered(func(e *dsse.Envelope) { e.Payload = payloadOf(sign(priv, prod)) })},
		{"altered type", `holds "application/x"`, altered(func(e *dsse.Envelope) { e.PayloadType = "application/x" })},
		{"payload that is no base64", "unable to base64", altered(func(e *dsse.Envelope) { e.Payload = "%" })},
		{"empty payload", "no key that this codeserver trusts", altered(func(e *dsse.Envelope) { e.Payload = "" })},
		{"no signatures", "no signature found", altered(func(e *dsse.Envelope) { e.Signatures = nil })},
		{"zero signature", "no key that this codeserver trusts", altered(func(e *dsse.Envelope) { e.Signatures = []dsse.Signature{signature} })},
		{"short signature", "no key that this codeserver trusts", altered(func(e *dsse.Envelope) { e.Signatures[0].Sig = "AAAA" })},
		{"many signatures", "17 signatures", altered(func(e *dsse.Envelope) { e.Signatures = make([]dsse.Signature, 17) })},
		{"for another location", `for the location "prod", not "staging"`, sign(priv, prod)},
		{"for another variable", "it is for the version", sign(priv, func(d *Deploy) { d.Spec.Env["A"] = "2" })},
		{"for another source", "it is for the version", sign(priv, func(d *Deploy) { d.Spec.SourceRoot = digest.FromBytes([]byte("x")).Proto() })},
		{"for another secret", "it is for the version", sign(priv, func(d *Deploy) { d.Spec.Secrets = []string{"x"} })},
		{"a channel's pointer", "its payload is no in-toto statement", signRaw(t, priv, `{"channel":"prod"}`)},
		{"another statement", `statement is "https://example.com/x"`, signRaw(t, priv, `{"_type":"https://in-toto.io/Statement/v1",
			"subject":[{"name":"a","digest":{"sha256":"`+strings.Repeat("0", 64)+`"}}],"predicateType":"https://example.com/x","predicate":{"a":1}}`)},
		{"another predicate", "not a deploy", signRaw(t, priv, strings.Replace(decoded(t, good), predicateType, "https://slsa.dev/provenance/v2", 1))},
		{"another build", "not a deploy", signRaw(t, priv, strings.Replace(decoded(t, good), buildType, "https://example.com/build", 1))},
		{"no statement", "incomplete", signRaw(t, priv, `{}`)},
		{"trees of another version", "names another tree than deps.pex", signChanged(t, priv, good, digest.FromBytes([]byte("deps")).Hash())},
		{"fewer trees", "is about 3 trees, not 4", signRaw(t, priv, strings.Replace(decoded(t, good),
			`,{"name":"output ui","digest":{"sha256":"`+digest.FromBytes([]byte("ui")).Hash()+`"}}`, "", 1))},
	} {
		err := v.Verify(t.Context(), "staging", newSpec(), test.envelope)
		require.ErrorIs(t, err, ErrUntrusted, test.name)
		require.ErrorContains(t, err, test.want, test.name)
	}
	require.ErrorContains(t, v.Verify(t.Context(), "staging", newSpec(func(s *codeserverpb.VersionSpec) { s.Cold = true }), good), "it is for the version")
	require.ErrorContains(t, v.Verify(t.Context(), "staging", nil, good), "no version")
}

func decoded(t *testing.T, envelope []byte) string {
	var e dsse.Envelope
	require.NoError(t, json.Unmarshal(envelope, &e))
	b, err := e.DecodeB64Payload()
	require.NoError(t, err)
	return string(b)
}

// signRaw signs any payload with a trusted key.
func signRaw(t *testing.T, priv ed25519.PrivateKey, payload string) []byte {
	k, err := SigningKey(priv)
	require.NoError(t, err)
	s, err := dsse.NewEnvelopeSigner(k)
	require.NoError(t, err)
	e, err := s.SignPayload(t.Context(), payloadType, []byte(payload))
	require.NoError(t, err)
	b, err := json.Marshal(e)
	require.NoError(t, err)
	return b
}

func signChanged(t *testing.T, priv ed25519.PrivateKey, envelope []byte, hash string) []byte {
	return signRaw(t, priv, strings.Replace(decoded(t, envelope), hash, strings.Repeat("0", 64), 1))
}

func TestKeys(t *testing.T) {
	private, public, err := Generate()
	require.NoError(t, err)
	_, other, err := Generate()
	require.NoError(t, err)
	file := func(content []byte) string {
		path := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	priv, err := ReadPrivate(file(private))
	require.NoError(t, err)
	pub, err := ReadPublic(file(append(bytes.Clone(public), other...)))
	require.NoError(t, err)
	require.Len(t, pub, 2)
	require.Equal(t, priv.Public(), pub[0])
	for want, content := range map[string][]byte{
		"no PRIVATE KEY in PEM form": public,
		"no ed25519 key":             []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
	} {
		_, err := ReadPrivate(file(content))
		require.ErrorContains(t, err, want)
	}
	for want, content := range map[string][]byte{
		"no PUBLIC KEY in PEM form": nil,
		"it holds a PRIVATE KEY":    append(bytes.Clone(public), private...),
		"no ed25519 key":            []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
	} {
		_, err := ReadPublic(file(content))
		require.ErrorContains(t, err, want)
	}
	_, err = NewVerifier(nil)
	require.ErrorContains(t, err, "no key to trust")
	_, err = NewVerifier([]ed25519.PublicKey{{1}})
	require.ErrorContains(t, err, "has 1 bytes, not 32")
}

// FuzzVerify has no envelope pass that was not signed, and none end the process.
func FuzzVerify(f *testing.F) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(f, err)
	v, err := NewVerifier([]ed25519.PublicKey{pub})
	require.NoError(f, err)
	other := newDeploy()
	other.Location = "prod"
	b, err := Sign(f.Context(), priv, other)
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"","signatures":[{"sig":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		require.ErrorIs(t, v.Verify(t.Context(), "staging", newSpec(), b), ErrUntrusted)
	})
}
