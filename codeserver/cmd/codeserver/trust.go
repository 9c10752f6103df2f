package main

import (
	"crypto/ed25519"
	"log/slog"

	"github.com/pexpress/pexpress/codeserver"
	"github.com/pexpress/pexpress/codeserver/provenance"
)

// trust returns what says which deploys are trusted: all if no keys are named.
func trust(files []string, log *slog.Logger) (codeserver.Verify, error) {
	if len(files) == 0 {
		return nil, nil
	}
	var all []ed25519.PublicKey
	for _, f := range files {
		keys, err := provenance.ReadPublic(f)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			id, err := provenance.KeyID(k)
			if err != nil {
				return nil, err
			}
			log.Info("deploys must be signed", "key", id, "file", f)
		}
		all = append(all, keys...)
	}
	v, err := provenance.NewVerifier(all)
	if err != nil {
		return nil, err
	}
	return v.Verify, nil
}
