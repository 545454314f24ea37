package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// Keys of the bucket of checkpoints, beside the attestations'.
const (
	KeySnapshots = "snapshot" // pointers to snapshots are at snapshot.SEQ
	keyRejected  = "aside"    // at aside.OBJECT
	keyBase      = "base"     // at base.pinned

	keyBasePinned = keyBase + ".pinned"
)

// Snapshot points to a replica's encoded state at a checkpoint.
type Snapshot struct {
	Attestation
	Object   string   `json:"object"`
	Size     int      `json:"size"`     // bytes
	Attested []string `json:"attested"` // the replicas that agreed on it
	// Genesis is the log's first message, on a base alone: a compaction may
	// have cut it.
	Genesis []byte `json:"genesis,omitempty"`
}

// RejectedSnapshot is a snapshot that a replica could not use, and that no one
// should try again.
type RejectedSnapshot struct {
	Object  string `json:"object"`
	Seq     uint64 `json:"seq"`
	Replica string `json:"replica"`
	Reason  string `json:"reason"`
}

// SnapshotKey is the key of the pointer to a checkpoint's snapshot.
func SnapshotKey(seq uint64) string { return fmt.Sprintf("%s.%020d", KeySnapshots, seq) }

// Snapshots reads the pointers to all snapshots, the oldest first.
func Snapshots(ctx context.Context, kv KV) ([]Snapshot, error) {
	return read(ctx, kv, KeySnapshots, checkSnapshot)
}

// RejectedSnapshots reads which snapshots are not to be used.
func RejectedSnapshots(ctx context.Context, kv KV) ([]RejectedSnapshot, error) {
	return read(ctx, kv, keyRejected, checkRejected)
}

// RejectSnapshot tells the fleet that a snapshot is not to be used.
func RejectSnapshot(ctx context.Context, kv KV, r RejectedSnapshot) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return kv.Put(ctx, keyRejected+"."+r.Object, value)
}

// Base returns the snapshot that a compacted log begins with; nil if the log
// was never compacted.
func Base(ctx context.Context, kv KV) (*Snapshot, error) {
	all, err := read(ctx, kv, keyBase, checkBase)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// Pin makes a snapshot the base of a log whose first message is genesis.
func Pin(ctx context.Context, kv KV, s Snapshot, genesis []byte) error {
	s.Genesis = genesis
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return kv.Put(ctx, keyBasePinned, value)
}

// ErrUnread is returned when the store of snapshots did not answer, which says
// nothing about the snapshot.
var ErrUnread = errors.New("the snapshot could not be read")

// LoadSnapshot reads a snapshot into a model of the caller's own, and checks
// that it is what its pointer says. It returns ErrUnread if the store did not
// answer; any other error means that the snapshot cannot be used.
func LoadSnapshot(ctx context.Context, objects Objects, spec *model.Spec, s Snapshot) (*model.Model, error) {
	data, err := objects.Get(ctx, s.Object)
	if err != nil && !errors.Is(err, bus.ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrUnread, err)
	}
	if err != nil {
		return nil, err
	}
	m, err := model.Restore(spec, data)
	if err != nil {
		return nil, err
	}
	if got := Attest(m); !got.Comparable(s.Attestation) || !got.Same(s.Attestation) {
		return nil, fmt.Errorf("it is not the state that it is said to be: sequence %d, digest %.12s, and not %d, %.12s",
			got.Seq, got.Digest, s.Seq, s.Digest)
	}
	return m, nil
}

// StoreSnapshot stores an encoded state and points to it, unless its
// checkpoint has a snapshot already. What was stored is read back and
// verified before it is pointed to. Names of objects end in an id of the
// writer's: two that put one name at once would damage it.
func StoreSnapshot(
	ctx context.Context, kv KV, objects Objects, spec *model.Spec, a Attestation, state []byte, attested []string,
) (stored bool, err error) {
	object := fmt.Sprintf("%020d-%s-%s", a.Seq, a.Replica, bus.NewID())
	s := Snapshot{Attestation: a, Object: object, Size: len(state), Attested: attested}
	if err := objects.Put(ctx, s.Object, state); err != nil {
		return false, err
	}
	_, err = LoadSnapshot(ctx, objects, spec, s)
	for attempt := 1; err != nil && attempt < 5 && wait(ctx, 200*time.Millisecond); attempt++ {
		_, err = LoadSnapshot(ctx, objects, spec, s) // a server that lags behind may not have it yet
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("reading it back: %w", err), objects.Remove(ctx, s.Object))
	}
	value, err := json.Marshal(s)
	if err != nil {
		return false, err
	}
	created, err := kv.Create(ctx, SnapshotKey(s.Seq), value)
	if err == nil && !created {
		err = objects.Remove(ctx, s.Object)
	}
	return created, err
}

// HasSnapshot reports whether a checkpoint has a snapshot already.
func HasSnapshot(ctx context.Context, kv KV, seq uint64) (bool, error) {
	entries, err := kv.List(ctx, KeySnapshots)
	return slices.ContainsFunc(entries, func(e bus.Entry) bool { return e.Key == SnapshotKey(seq) }), err
}

// RemoveSnapshot removes a snapshot and what was attested of it: its pointer
// first.
func RemoveSnapshot(ctx context.Context, kv KV, objects Objects, s Snapshot) error {
	return errors.Join(kv.Remove(ctx, SnapshotKey(s.Seq)), objects.Remove(ctx, s.Object),
		RemoveAttestations(ctx, kv, s.Seq), kv.Remove(ctx, keyRejected+"."+s.Object))
}

// wait returns after d, or false as soon as ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
