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
	conn   *Conn
	store  jetstream.ObjectStore
	prefix string // of the store's subjects
}

// blobTimeout bounds the transfer of one object.
const blobTimeout = 20 * time.Second

// blobsStream is the store's stream, as object stores are laid out (ADR-20).
func blobsStream(bucket, description string, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: "OBJ_" + bucket, Description: description, Subjects: []string{"$O." + bucket + ".C.>", "$O." + bucket + ".M.>"},
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, AllowRollup: true, AllowDirect: true, Replicas: replicas,
	}
}

// OpenBlobs binds a store, and makes it if there is none.
func OpenBlobs(ctx context.Context, conn *Conn, bucket, description string, replicas int) (*Blobs, error) {
	wanted := blobsStream(bucket, description, replicas)
	return bindBlobs(ctx, conn, bucket, func(ctx context.Context, js jetstream.JetStream) error {
		_, err := bindOrCreate(ctx, conn, js, wanted)
		return err
	})
}

// BindBlobs binds a store, or returns ErrNoBoard.
func BindBlobs(ctx context.Context, conn *Conn, bucket string) (*Blobs, error) {
	return bindBlobs(ctx, conn, bucket, func(context.Context, jetstream.JetStream) error { return ErrNoBoard })
}

// bindBlobs binds a store. Where there is none it calls create first.
func bindBlobs(
	ctx context.Context, conn *Conn, bucket string,
	create func(context.Context, jetstream.JetStream) error,
) (*Blobs, error) {
	b := &Blobs{conn: conn, prefix: "$O." + bucket + "."}
	js, err := conn.jetStream()
	if err != nil {
		return nil, err
	}
	err = createOnce(ctx, conn, func(ctx context.Context) error {
		b.store, err = js.ObjectStore(ctx, bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			if err := create(ctx, js); err != nil {
				return err
			}
			b.store, err = js.ObjectStore(ctx, bucket)
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
	return b.write(ctx, blobTimeout, func(ctx context.Context) error {
		_, err := b.store.PutBytes(ctx, name, data)
		return err
	})
}

// write runs a call that publishes to the store, and to the API.
func (b *Blobs) write(ctx context.Context, timeout time.Duration, f func(context.Context) error) error {
	return b.conn.do(
		ctx, b.prefix, timeout,
		func(ctx context.Context) error { return b.conn.do(ctx, b.conn.api, timeout, f) },
	)
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
	err := b.write(ctx, apiTimeout, func(ctx context.Context) error { return b.store.Delete(ctx, name) })
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
