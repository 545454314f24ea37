package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Board is where replicas leave word for each other: a key-value bucket.
type Board struct {
	conn   *Conn
	kv     jetstream.KeyValue
	stream jetstream.Stream
	prefix string // of the bucket's subjects
}

// BoardConfig names a board.
type BoardConfig struct {
	Bucket      string
	Description string
	TTL         time.Duration // entries vanish then; 0: never. Such a board is held in memory
	Replicas    int
}

// Entry is what stands under a key.
type Entry struct {
	Key   string
	Value []byte
}

// ErrNoBoard is returned when a bucket does not exist.
var ErrNoBoard = errors.New("no such bucket")

// stream is the bucket's stream, as key-value buckets are laid out (ADR-8).
func (c BoardConfig) stream() jetstream.StreamConfig {
	config := jetstream.StreamConfig{
		Name: "KV_" + c.Bucket, Description: c.Description, Subjects: []string{"$KV." + c.Bucket + ".>"},
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxMsgsPerSubject: 1, MaxAge: c.TTL,
		AllowRollup: true, DenyDelete: true, AllowDirect: true, Duplicates: duplicateWindow, Replicas: c.Replicas,
	}
	if c.TTL > 0 {
		config.Storage, config.Duplicates = jetstream.MemoryStorage, min(c.TTL, duplicateWindow)
	}
	return config
}

// OpenBoard binds a board, and makes it if there is none.
func OpenBoard(ctx context.Context, conn *Conn, config BoardConfig) (*Board, error) {
	wanted := config.stream()
	return bindBoard(ctx, conn, config.Bucket, func(ctx context.Context, js jetstream.JetStream) error {
		_, err := bindOrCreate(ctx, conn, js, wanted)
		return err
	})
}

// BindBoard binds a board, or returns ErrNoBoard.
func BindBoard(ctx context.Context, conn *Conn, bucket string) (*Board, error) {
	return bindBoard(ctx, conn, bucket, func(context.Context, jetstream.JetStream) error { return ErrNoBoard })
}

// bindBoard binds a board. Where there is none it calls create first.
func bindBoard(
	ctx context.Context, conn *Conn, bucket string,
	create func(context.Context, jetstream.JetStream) error,
) (*Board, error) {
	b := &Board{conn: conn, prefix: "$KV." + bucket + "."}
	js, err := conn.jetStream()
	if err != nil {
		return nil, err
	}
	err = createOnce(ctx, conn, func(ctx context.Context) error {
		b.kv, err = js.KeyValue(ctx, bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			if err := create(ctx, js); err != nil {
				return err
			}
			b.kv, err = js.KeyValue(ctx, bucket)
		}
		if err == nil {
			b.stream, err = js.Stream(ctx, "KV_"+bucket)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", bucket, err)
	}
	return b, nil
}

// Put writes an entry over what stands there.
func (b *Board) Put(ctx context.Context, key string, value []byte) error {
	return b.conn.do(ctx, b.prefix+key, apiTimeout, func(ctx context.Context) error {
		_, err := b.kv.Put(ctx, key, value)
		return err
	})
}

// Create writes an entry, and returns false if there is one already.
func (b *Board) Create(ctx context.Context, key string, value []byte) (created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	// A write whose fate is unknown is not tried again: if it was stored, the
	// second would report that somebody else was first.
	return b.conn.putFirst(ctx, b.prefix+key, inProcess, func(ctx context.Context) error {
		_, err := b.kv.Create(ctx, key, value)
		return err
	})
}

// Remove takes away every entry at a key and below it, and leaves no trace.
func (b *Board) Remove(ctx context.Context, key string) error {
	return b.conn.do(ctx, b.conn.api, apiTimeout, func(ctx context.Context) error {
		return errors.Join(
			b.stream.Purge(ctx, jetstream.WithPurgeSubject(b.prefix+key)),
			b.stream.Purge(ctx, jetstream.WithPurgeSubject(b.prefix+key+".>")),
		)
	})
}

// listQuiet bounds the wait for the next entry of a list.
const listQuiet = 2 * time.Second

// List returns the entries below a key, at most 1,024, sorted by key. One
// request gets them all, at one moment, from any of the bucket's servers.
func (b *Board) List(ctx context.Context, key string) ([]Entry, error) {
	request, err := json.Marshal(map[string]any{"multi_last": []string{b.prefix + key + ".>"}, "batch": 1024})
	if err != nil {
		return nil, err
	}
	inbox := b.conn.NewInbox()
	sub, err := b.conn.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	var entries []Entry
	subject := b.conn.api + "DIRECT.GET." + b.stream.CachedInfo().Config.Name
	err = b.conn.do(ctx, subject, listQuiet, func(ctx context.Context) error {
		if err := b.conn.PublishRequest(subject, inbox, request); err != nil {
			return err
		}
		for {
			msg, err := sub.NextMsgWithContext(ctx)
			if err != nil {
				return err
			}
			switch status := msg.Header.Get("Status"); status {
			case "":
				if entry, ok := b.entry(msg); ok {
					entries = append(entries, entry)
				}
			case "204", "404": // the end; there are none
				return nil
			default:
				return fmt.Errorf("list of %s: %s %s", key, status, msg.Header.Get("Description"))
			}
		}
	})
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	if errors.Is(err, nats.ErrNoResponders) { // no entry was ever written, or no server has the bucket now
		if _, infoErr := b.stream.Info(ctx); infoErr == nil {
			err = nil
		}
	}
	return entries, err
}

// entry is a message of the bucket as an entry, unless it marks a deletion.
func (b *Board) entry(msg *nats.Msg) (Entry, bool) {
	key, ok := strings.CutPrefix(msg.Header.Get("Nats-Subject"), b.prefix)
	return Entry{key, msg.Data}, ok && msg.Header.Get("KV-Operation") == "" && msg.Header.Get("Nats-Marker-Reason") == ""
}
