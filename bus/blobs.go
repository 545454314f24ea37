package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Blobs is a store of large immutable objects: a JetStream object store. No
// two may write one name: concurrent puts corrupt it.
type Blobs struct {
	conn  *Conn
	store jetstream.ObjectStore
}

// blobTimeout bounds the transfer of one object.
const blobTimeout = 20 * time.Second

// OpenBlobs binds a store, and makes it if there is none.
func OpenBlobs(ctx context.Context, conn *Conn, bucket, description string, replicas int) (*Blobs, error) {
	return openBlobs(ctx, conn, bucket, func(ctx context.Context, js jetstream.JetStream) (jetstream.ObjectStore, error) {
		return js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: bucket, Description: description, Replicas: max(replicas, 1)})
	})
}

// BindBlobs binds a store, or returns ErrNoBoard.
func BindBlobs(ctx context.Context, conn *Conn, bucket string) (*Blobs, error) {
	return openBlobs(ctx, conn, bucket, func(context.Context, jetstream.JetStream) (jetstream.ObjectStore, error) {
		return nil, ErrNoBoard
	})
}

func openBlobs(ctx context.Context, conn *Conn, bucket string, create func(context.Context, jetstream.JetStream) (jetstream.ObjectStore, error)) (*Blobs, error) {
	b := &Blobs{conn: conn}
	js, err := conn.jetStream()
	if err != nil {
		return nil, err
	}
	err = createOnce(ctx, conn, func(ctx context.Context) error {
		b.store, err = js.ObjectStore(ctx, bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			b.store, err = create(ctx, js)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("object store %s: %w", bucket, err)
	}
	return b, nil
}

// Put stores an object.
func (b *Blobs) Put(ctx context.Context, name string, data []byte) error {
	return b.conn.do(ctx, b.conn.api, blobTimeout, func(ctx context.Context) error {
		_, err := b.store.PutBytes(ctx, name, data)
		return err
	})
}

// ErrDamaged is returned when an object is not there, or not whole.
var ErrDamaged = errors.New("the object is missing or damaged")

// Get reads an object, and checks it against its own hash. It returns
// ErrDamaged if that fails, or there is none.
func (b *Blobs) Get(ctx context.Context, name string) (data []byte, err error) {
	err = b.conn.do(ctx, b.conn.api, blobTimeout, func(ctx context.Context) error {
		data, err = b.store.GetBytes(ctx, name)
		return err
	})
	if errors.Is(err, jetstream.ErrObjectNotFound) || errors.Is(err, jetstream.ErrDigestMismatch) {
		err = fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	return data, err
}

// Remove deletes an object; it may be gone already.
func (b *Blobs) Remove(ctx context.Context, name string) error {
	err := b.conn.do(ctx, b.conn.api, apiTimeout, func(ctx context.Context) error { return b.store.Delete(ctx, name) })
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil
	}
	return err
}

// List returns the names of all objects, sorted.
func (b *Blobs) List(ctx context.Context) (names []string, err error) {
	err = b.conn.do(ctx, b.conn.api, apiTimeout, func(ctx context.Context) error {
		all, err := b.store.List(ctx)
		for _, one := range all {
			names = append(names, one.Name)
		}
		return err
	})
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		err = nil
	}
	slices.Sort(names)
	return names, err
}
