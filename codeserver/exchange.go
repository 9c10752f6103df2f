package codeserver

import (
	"context"
	"errors"
	"io"

	"github.com/pexpress/pexpress/cache"
	"github.com/pexpress/pexpress/cache/named"
	"github.com/pexpress/pexpress/codeserver/zygote"
)

// exchange tells other hosts, through the cache, what versions import when they start. Of each key there is a named file;
// see zygote.ParseLearned for what is believed of it.
type exchange struct {
	open func(context.Context) (cache.CAS, cache.ActionCache, io.Closer, error)
}

func importsOf(key string) (*named.File, error) {
	return named.New("imports.json", zygote.MaxLearned, "pexpress-imports", "v1", key)
}

// Fetch implements zygote.Exchange.
func (e *exchange) Fetch(ctx context.Context, key string) ([]byte, error) {
	f, err := importsOf(key)
	if err != nil {
		return nil, err
	}
	cas, results, closer, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	b, err := f.Get(ctx, cas, results)
	if errors.Is(err, cache.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// Publish implements zygote.Exchange.
func (e *exchange) Publish(ctx context.Context, key string, learned []byte) error {
	f, err := importsOf(key)
	if err != nil {
		return err
	}
	cas, results, closer, err := e.open(ctx)
	if err != nil {
		return err
	}
	defer closer.Close()
	return f.Put(ctx, cas, results, learned, nil)
}
