package bustest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"lockstep/bus"
)

// Blobs is a store of objects in memory, as all its users see it together.
type Blobs struct {
	mu      sync.Mutex
	objects map[string][]byte   // guarded by mu
	spoil   func([]byte) []byte // of the next object that is put; guarded by mu
}

// NewBlobs makes an empty store.
func NewBlobs() *Blobs { return &Blobs{objects: map[string][]byte{}} }

// Put is as bus.Blobs'.
func (b *Blobs) Put(_ context.Context, name string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	data = append([]byte(nil), data...)
	if b.spoil != nil {
		data = b.spoil(data)
		b.spoil = nil
	}
	b.objects[name] = data
	return nil
}

// Get is as bus.Blobs'.
func (b *Blobs) Get(_ context.Context, name string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, found := b.objects[name]
	if !found {
		return nil, fmt.Errorf("%w: %s", bus.ErrDamaged, name)
	}
	return append([]byte(nil), data...), nil
}

// Remove is as bus.Blobs'.
func (b *Blobs) Remove(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.objects, name)
	return nil
}

// List is as bus.Blobs'.
func (b *Blobs) List(context.Context) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.objects)), nil
}

// SpoilNext spoils the next object while it is written.
func (b *Blobs) SpoilNext(spoil func([]byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spoil = spoil
}

// Spoil changes an object that is stored, so that no hash of the store's own
// tells; false if there is none, or nothing is left of it.
func (b *Blobs) Spoil(name string, spoil func([]byte) []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, found := b.objects[name]
	if !found || len(data) == 0 {
		return false
	}
	b.objects[name] = spoil(append([]byte(nil), data...))
	return true
}

// blobTimeout is how long a transfer waits for its end.
const blobTimeout = 5 * time.Second

// BlobsUser is a store as one party sees it, over its way.
type BlobsUser struct {
	blobs *Blobs
	way   *Way
}

// By is the store over a way.
func (b *Blobs) By(way *Way) *BlobsUser { return &BlobsUser{b, way} }

// Put is as bus.Blobs'.
func (u *BlobsUser) Put(ctx context.Context, name string, data []byte) error {
	return u.way.call(ctx, blobTimeout, func() error { return u.blobs.Put(ctx, name, data) })
}

// Get is as bus.Blobs'.
func (u *BlobsUser) Get(ctx context.Context, name string) (data []byte, err error) {
	err = u.way.call(ctx, blobTimeout, func() error { data, err = u.blobs.Get(ctx, name); return err })
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Remove is as bus.Blobs'.
func (u *BlobsUser) Remove(ctx context.Context, name string) error {
	return u.way.call(ctx, blobTimeout, func() error { return u.blobs.Remove(ctx, name) })
}
