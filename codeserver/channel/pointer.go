// Package channel has named, signed pointers in a cache that codeservers follow.
//
// A channel, prod for one, says which version each of its locations is to serve. Whoever has the key publishes a pointer;
// any number of codeservers poll for it, so that a fleet is updated without being pushed to, and one that was down catches
// up. The cache is not trusted: a pointer is believed for its signature, its channel's name in what is signed, and a
// sequence number that only rises.
package channel

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/pexpress/pexpress/cache/lazy"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/provenance"
)

// PayloadType is what DSSE signs along with a pointer, so that no other kind of document passes for one.
const PayloadType = "application/vnd.pexpress.channel.v1+json"

// maxPointer bounds an envelope.
const maxPointer = 4 << 20

// ErrRefused is wrapped by errors about a pointer that is not believed.
var ErrRefused = errors.New("the channel's pointer is refused")

// A Pointer says what the locations of a channel serve.
type Pointer struct {
	Channel string
	// Sequence rises with each pointer of the channel.
	Sequence  int64
	IssuedAt  time.Time
	Locations map[string]Release
}

// A Release is a version of one location.
type Release struct {
	Spec *codeserverpb.VersionSpec
	// Provenance is the deploy's own signature, for codeservers that ask for one.
	Provenance []byte
}

var validName = lazy.Regexp(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckName refuses what cannot be a channel's name.
func CheckName(name string) error {
	if !validName().MatchString(name) {
		return fmt.Errorf("%.80q is no name for a channel: 1 to 63 letters, digits, '-', '_' or '.', starting with a letter or digit", name)
	}
	return nil
}

// pointerJSON is the payload.
type pointerJSON struct {
	Channel   string                 `json:"channel"`
	Sequence  int64                  `json:"sequence"`
	IssuedAt  time.Time              `json:"issued_at"`
	Locations map[string]releaseJSON `json:"locations"`
}

type releaseJSON struct {
	Spec       json.RawMessage `json:"spec"`
	Provenance []byte          `json:"provenance,omitempty"`
}

// Sign returns the pointer in an envelope.
func (p *Pointer) Sign(ctx context.Context, key ed25519.PrivateKey) ([]byte, error) {
	payload, err := p.encode()
	if err != nil {
		return nil, err
	}
	own, err := provenance.SigningKey(key)
	if err != nil {
		return nil, err
	}
	signer, err := dsse.NewEnvelopeSigner(own)
	if err != nil {
		return nil, err
	}
	e, err := signer.SignPayload(ctx, PayloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign channel %s: %w", p.Channel, err)
	}
	return json.Marshal(e)
}

func (p *Pointer) encode() ([]byte, error) {
	out := pointerJSON{Channel: p.Channel, Sequence: p.Sequence, IssuedAt: p.IssuedAt.UTC(), Locations: map[string]releaseJSON{}}
	for name, r := range p.Locations {
		spec, err := protojson.Marshal(r.Spec)
		if err != nil {
			return nil, fmt.Errorf("location %s: %w", name, err)
		}
		out.Locations[name] = releaseJSON{spec, r.Provenance}
	}
	return json.Marshal(out)
}

// Read returns the pointer of an envelope, without asking who has signed it.
func Read(envelope []byte) (*Pointer, error) {
	payload, _, err := open(envelope)
	if err != nil {
		return nil, err
	}
	return decode(payload)
}

// Verify returns the pointer of an envelope that one of the keys has signed for the channel of that name, and the payload that
// was signed.
func Verify(ctx context.Context, envelope []byte, name string, keys []ed25519.PublicKey) (*Pointer, []byte, error) {
	payload, e, err := open(envelope)
	if err != nil {
		return nil, nil, err
	}
	verifiers := make([]dsse.Verifier, len(keys))
	for i, k := range keys {
		if verifiers[i], err = provenance.VerifyingKey(k); err != nil {
			return nil, nil, err
		}
	}
	v, err := dsse.NewEnvelopeVerifier(verifiers...)
	if err != nil {
		return nil, nil, err
	}
	if _, err := v.Verify(ctx, e); err != nil {
		return nil, nil, fmt.Errorf("%w: channel %s: no key that is trusted for channels has signed it: %w", ErrRefused, name, err)
	}
	p, err := decode(payload)
	if err != nil {
		return nil, nil, err
	}
	if p.Channel != name {
		return nil, nil, fmt.Errorf("%w: what is in the place of channel %s is a pointer of %.80q", ErrRefused, name, p.Channel)
	}
	return p, payload, nil
}

func open(envelope []byte) ([]byte, *dsse.Envelope, error) {
	e := &dsse.Envelope{}
	if err := json.Unmarshal(envelope, e); err != nil {
		return nil, nil, fmt.Errorf("%w: it is no DSSE envelope: %w", ErrRefused, err)
	}
	if e.PayloadType != PayloadType {
		return nil, nil, fmt.Errorf("%w: it is %.80q, not %s", ErrRefused, e.PayloadType, PayloadType)
	}
	payload, err := e.DecodeB64Payload()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: its payload: %w", ErrRefused, err)
	}
	return payload, e, nil
}

// decode is strict: what a pointer says that this version does not know could be a condition.
func decode(payload []byte) (*Pointer, error) {
	in := pointerJSON{}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	err := d.Decode(&in)
	if _, more := d.Token(); err == nil && more != io.EOF {
		err = errors.New("something follows it")
	}
	if err == nil && in.Sequence < 1 {
		err = fmt.Errorf("the sequence number is %d", in.Sequence)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its payload is no pointer: %w", ErrRefused, err)
	}
	p := &Pointer{Channel: in.Channel, Sequence: in.Sequence, IssuedAt: in.IssuedAt, Locations: map[string]Release{}}
	for name, r := range in.Locations {
		spec := &codeserverpb.VersionSpec{}
		if err := protojson.Unmarshal(r.Spec, spec); err != nil {
			return nil, fmt.Errorf("%w: location %.80q: %w", ErrRefused, name, err)
		}
		p.Locations[name] = Release{spec, r.Provenance}
	}
	return p, nil
}
