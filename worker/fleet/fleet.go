// Package fleet is what the replicas of a model tell each other, and what
// tools read of it: who they are, how far they are, what they attest, which
// snapshots there are, where all of it is stored, and who may do what.
//
// The package decides nothing by itself and starts no goroutine: it has types,
// their encodings, reads and writes of the buckets, and pure functions of what
// was read. Its functions are safe for concurrent use unless they say
// otherwise.
package fleet

import (
	"context"

	"lockstep/bus"
)

// KV is a bucket of small values. bus has the real one. It must be safe for
// concurrent use; each call returns when the server has answered, or with
// ctx's error.
type KV interface {
	// Put writes a value over the one under key.
	Put(ctx context.Context, key string, value []byte) error
	// Create writes a value, and returns false if there is one already.
	Create(ctx context.Context, key string, value []byte) (created bool, err error)
	// Remove removes every value at a key and below it.
	Remove(ctx context.Context, key string) error
	// List returns the values below a key, sorted by key. The caller owns them.
	List(ctx context.Context, key string) ([]bus.Entry, error)
}

// Objects is a store of large immutable objects. bus has the real one. It must
// be safe for concurrent use.
type Objects interface {
	Put(ctx context.Context, name string, data []byte) error
	// Get returns bus.ErrDamaged if there is no such object, or it is damaged.
	Get(ctx context.Context, name string) ([]byte, error)
	Remove(ctx context.Context, name string) error
}
