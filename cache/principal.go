package cache

import "context"

type principalKey struct{}

// WithPrincipal returns a context that says who makes the call. A backend that keeps ActionResults for several writers
// records it with each of them, so that what one of them wrote can be undone.
func WithPrincipal(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, principalKey{}, name)
}

// PrincipalOf returns who makes the call, "" if nobody said so.
func PrincipalOf(ctx context.Context) string {
	name, _ := ctx.Value(principalKey{}).(string)
	return name
}
