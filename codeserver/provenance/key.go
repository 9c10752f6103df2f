package provenance

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// key is an ed25519 key as package dsse takes it.
type key struct {
	public  ed25519.PublicKey
	private ed25519.PrivateKey // nil for one that only verifies
	id      string
}

// SigningKey returns a key as package dsse takes it to sign.
func SigningKey(private ed25519.PrivateKey) (dsse.Signer, error) {
	public := private.Public().(ed25519.PublicKey)
	id, err := KeyID(public)
	return &key{public, private, id}, err
}

// VerifyingKey returns a key as package dsse takes it to verify.
func VerifyingKey(public ed25519.PublicKey) (dsse.Verifier, error) {
	id, err := KeyID(public)
	return &key{public: public, id: id}, err
}

// KeyID names a public key: its fingerprint as ssh-keygen shows it.
func KeyID(public ed25519.PublicKey) (string, error) {
	if len(public) != ed25519.PublicKeySize {
		return "", fmt.Errorf("the public key has %d bytes, not %d", len(public), ed25519.PublicKeySize)
	}
	return dsse.SHA256KeyID(public)
}

// Sign implements dsse.Signer.
func (k *key) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(k.private, data), nil
}

// Verify implements dsse.Verifier.
func (k *key) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(k.public, data, sig) {
		return errors.New("the signature is not this key's")
	}
	return nil
}

// KeyID implements dsse.Signer and dsse.Verifier.
func (k *key) KeyID() (string, error) { return k.id, nil }

// Public implements dsse.Verifier.
func (k *key) Public() crypto.PublicKey { return k.public }

const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
)

// Generate returns a new key and its public half, in PEM form (PKCS #8 and PKIX, as openssl and cosign take them).
func Generate() (private, public []byte, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, err
	}
	open, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: secret}),
		pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: open}), nil
}

// ReadPrivate reads a private key. No error shows what is in the file.
func ReadPrivate(path string) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != privateBlock {
		return nil, fmt.Errorf("signing key %s: no %s in PEM form: 'pexpress key generate' makes one", path, privateBlock)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	k, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("signing key %s: no ed25519 key", path)
	}
	return k, nil
}

// ReadPublic reads the public keys of a file, one or more.
func ReadPublic(path string) ([]ed25519.PublicKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("trusted key: %w", err)
	}
	var keys []ed25519.PublicKey
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != publicBlock {
			return nil, fmt.Errorf("trusted key %s: it holds a %.40s: only a %s belongs there", path, block.Type, publicBlock)
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		k, ok := parsed.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("trusted key %s: no ed25519 key", path)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("trusted key %s: no %s in PEM form", path, publicBlock)
	}
	return keys, nil
}
