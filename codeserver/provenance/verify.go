package provenance

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"

	slsa "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// ErrUntrusted is wrapped by the error for a deploy that no trusted key vouches for.
var ErrUntrusted = errors.New("the deploy is not trusted")

// Limits of what is looked at: a signature of ours has about 2 KiB.
const (
	maxEnvelope   = 256 << 10
	maxSignatures = 16
)

// Verifier knows the keys whose owners may vouch for deploys.
type Verifier struct {
	envelopes *dsse.EnvelopeVerifier
}

// NewVerifier returns a Verifier that trusts the keys; one signature is enough.
func NewVerifier(keys []ed25519.PublicKey) (*Verifier, error) {
	seen := map[string]bool{}
	var trusted []dsse.Verifier
	for _, k := range keys {
		if seen[string(k)] {
			continue
		}
		seen[string(k)] = true
		v, err := VerifyingKey(k)
		if err != nil {
			return nil, err
		}
		trusted = append(trusted, v)
	}
	if len(trusted) == 0 {
		return nil, errors.New("no key to trust")
	}
	envelopes, err := dsse.NewEnvelopeVerifier(trusted...)
	return &Verifier{envelopes}, err
}

// Verify returns nil if the envelope holds a trusted key's signature for exactly this version of exactly this location.
func (v *Verifier) Verify(ctx context.Context, location string, spec *codeserverpb.VersionSpec, envelope []byte) error {
	if len(envelope) == 0 {
		return fmt.Errorf("%w: it has no signature, and this codeserver takes signed ones only: "+
			"pass --sign-key FILE, or set $PEXPRESS_SIGN_KEY", ErrUntrusted)
	}
	payload, err := v.open(ctx, envelope)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	if err := check(payload, location, spec); err != nil {
		return fmt.Errorf("%w: the signature is good, but %w: sign this deploy itself", ErrUntrusted, err)
	}
	return nil
}

// open returns the payload of an envelope that a trusted key has signed. What nobody has signed is not parsed.
func (v *Verifier) open(ctx context.Context, envelope []byte) ([]byte, error) {
	if len(envelope) > maxEnvelope {
		return nil, fmt.Errorf("its envelope has %d bytes, more than the %d allowed", len(envelope), maxEnvelope)
	}
	var e dsse.Envelope
	dec := json.NewDecoder(bytes.NewReader(envelope))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return nil, fmt.Errorf("its envelope is not a DSSE envelope in JSON: %w", err)
	}
	switch {
	case dec.More():
		return nil, errors.New("something follows its envelope")
	case e.PayloadType != payloadType:
		return nil, fmt.Errorf("its envelope holds %.80q, not %s", e.PayloadType, payloadType)
	case len(e.Signatures) > maxSignatures:
		return nil, fmt.Errorf("its envelope has %d signatures, more than the %d allowed", len(e.Signatures), maxSignatures)
	}
	_, payload, err := v.envelopes.VerifyAndDecode(ctx, &e)
	if err != nil {
		return nil, fmt.Errorf("no key that this codeserver trusts has signed it as it is (%w)", err)
	}
	return payload, nil
}

// check compares what was signed with what is to be deployed.
func check(payload []byte, location string, spec *codeserverpb.VersionSpec) error {
	st, p := &intoto.Statement{}, &slsa.Provenance{}
	if err := protojson.Unmarshal(payload, st); err != nil {
		return fmt.Errorf("its payload is no in-toto statement: %w", err)
	}
	if err := st.Validate(); err != nil {
		return fmt.Errorf("its statement is incomplete: %w", err)
	}
	predicate, err := protojson.Marshal(st.GetPredicate())
	if err == nil {
		err = protojson.Unmarshal(predicate, p)
	}
	if err != nil || st.GetType() != intoto.StatementTypeUri || st.GetPredicateType() != predicateType ||
		p.GetBuildDefinition().GetBuildType() != buildType {
		return fmt.Errorf("its statement is %.200q about %.200q, not a deploy", st.GetPredicateType(), p.GetBuildDefinition().GetBuildType())
	}
	name, err := versionName(spec)
	if err != nil {
		return err
	}
	signed := p.GetBuildDefinition().GetExternalParameters().GetFields()
	if l := signed["location"].GetStringValue(); l != location {
		return fmt.Errorf("it is for the location %.80q, not %.80q", l, location)
	}
	if v := signed["version"].GetStringValue(); v != name {
		return fmt.Errorf("it is for the version %.64q, not %s", v, name)
	}
	want := subjects(spec)
	if len(want) != len(st.GetSubject()) {
		return fmt.Errorf("it is about %d trees, not %d", len(st.GetSubject()), len(want))
	}
	for i, s := range st.GetSubject() {
		if !proto.Equal(s, want[i]) {
			return fmt.Errorf("it names another tree than %s %.64s", want[i].GetName(), want[i].GetDigest()["sha256"])
		}
	}
	return nil
}
