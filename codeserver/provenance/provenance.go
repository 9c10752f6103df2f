// Package provenance signs deploys, and checks their signatures.
//
// What is signed is an in-toto Statement with a SLSA provenance predicate in a DSSE envelope (docs/trust.md has the
// shape). Its subjects are the version's trees; the predicate names the location and the digest of the whole VersionSpec,
// so that a signature is good for exactly one version of one location.
package provenance

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	slsa "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/pexpress/pexpress/cache/digest"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// What the parts of a signature say they are.
const (
	payloadType   = "application/vnd.in-toto+json"
	predicateType = "https://slsa.dev/provenance/v1"
	buildType     = "https://github.com/pexpress/pexpress/blob/main/docs/trust.md#deploy-v1"
	builderID     = "https://github.com/pexpress/pexpress"
)

// Deploy is what a signature is about.
type Deploy struct {
	Location string
	Spec     *codeserverpb.VersionSpec
	// Actions are those that made the trees, by the trees' names, where they are known.
	Actions map[string]digest.Digest
	// Lock is the lock from which the dependencies were selected, zero if it is not known.
	Lock digest.Digest
}

// Sign returns the envelope that says that the key's owner vouches for a deploy.
func Sign(ctx context.Context, key ed25519.PrivateKey, d Deploy) ([]byte, error) {
	st, err := d.statement()
	if err != nil {
		return nil, err
	}
	b, err := protojson.Marshal(st)
	if err != nil {
		return nil, err
	}
	var payload bytes.Buffer // protojson varies its spaces on purpose
	if err := json.Compact(&payload, b); err != nil {
		return nil, err
	}
	s, err := SigningKey(key)
	if err != nil {
		return nil, err
	}
	signer, err := dsse.NewEnvelopeSigner(s)
	if err != nil {
		return nil, err
	}
	e, err := signer.SignPayload(ctx, payloadType, payload.Bytes())
	if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

func (d Deploy) statement() (*intoto.Statement, error) {
	name, err := versionName(d.Spec)
	if err != nil {
		return nil, err
	}
	external, err := structpb.NewStruct(map[string]any{"location": d.Location, "version": name})
	if err != nil {
		return nil, err
	}
	p := &slsa.Provenance{
		BuildDefinition: &slsa.BuildDefinition{BuildType: buildType, ExternalParameters: external},
		RunDetails:      &slsa.RunDetails{Builder: &slsa.Builder{Id: builderID}},
	}
	if !d.Lock.IsZero() {
		p.BuildDefinition.ResolvedDependencies = append(p.BuildDefinition.ResolvedDependencies, resource("pylock.toml", d.Lock.Hash()))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Actions)) {
		p.BuildDefinition.ResolvedDependencies = append(p.BuildDefinition.ResolvedDependencies,
			resource("action of "+name, d.Actions[name].Hash()))
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	predicate, err := toStruct(p)
	if err != nil {
		return nil, err
	}
	st := &intoto.Statement{
		Type: intoto.StatementTypeUri, Subject: subjects(d.Spec), PredicateType: predicateType, Predicate: predicate,
	}
	return st, st.Validate()
}

func toStruct(p *slsa.Provenance) (*structpb.Struct, error) {
	b, err := protojson.Marshal(p)
	if err != nil {
		return nil, err
	}
	s := &structpb.Struct{}
	return s, protojson.Unmarshal(b, s)
}

// subjects are the trees of a version, in an order of their own.
func subjects(spec *codeserverpb.VersionSpec) []*intoto.ResourceDescriptor {
	all := []*intoto.ResourceDescriptor{
		resource("deps.pex", spec.GetDepsRoot().GetHash()), resource("source.pex", spec.GetSourceRoot().GetHash()),
	}
	for _, name := range slices.Sorted(maps.Keys(spec.GetOutputs())) {
		all = append(all, resource("output "+name, spec.GetOutputs()[name].GetHash()))
	}
	return all
}

func resource(name, sha256 string) *intoto.ResourceDescriptor {
	return &intoto.ResourceDescriptor{Name: name, Digest: map[string]string{"sha256": sha256}}
}

// versionName is the name of a version: the digest of all that makes it.
func versionName(spec *codeserverpb.VersionSpec) (string, error) {
	if spec == nil {
		return "", errors.New("there is no version to sign for")
	}
	_, d, err := digest.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("version: %w", err)
	}
	return d.Hash(), nil
}
