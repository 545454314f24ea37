package worker

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"lockstep/bus"
	"lockstep/model"
)

// Blobs is a store of large immutable objects. bus.Blobs is the real one.
type Blobs interface {
	Put(ctx context.Context, name string, data []byte) error
	// Get returns bus.ErrDamaged if there is no such object, or it is damaged.
	Get(ctx context.Context, name string) ([]byte, error)
	Remove(ctx context.Context, name string) error
}

// Keys of the checkpoints' board.
const (
	keySnapshot = "snapshot"
	keyAside    = "aside"
	keyBase     = "base"
)

// Limits of the snapshots.
const (
	snapshotEvery   = time.Minute
	snapshotStagger = 10 * time.Second // how much longer each next replica waits for another to write one
	snapshotsKept   = 3                // beside the one that a compaction pinned
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

// Aside is a snapshot that somebody could not use.
type Aside struct {
	Object  string `json:"object"`
	Seq     uint64 `json:"seq"`
	Replica string `json:"replica"`
	Reason  string `json:"reason"`
}

// SnapshotKey is where the pointer to a checkpoint's snapshot stands.
func SnapshotKey(seq uint64) string { return fmt.Sprintf("%s.%020d", keySnapshot, seq) }

// Snapshots reads the pointers to all snapshots, the oldest first.
func Snapshots(ctx context.Context, board Board) ([]Snapshot, error) {
	return pointers[Snapshot](ctx, board, keySnapshot)
}

// Asides reads which snapshots were set aside.
func Asides(ctx context.Context, board Board) ([]Aside, error) {
	return pointers[Aside](ctx, board, keyAside)
}

// Base is the snapshot that a compacted log begins with; nil if the log was
// never compacted.
func Base(ctx context.Context, board Board) (*Snapshot, error) {
	all, err := pointers[Snapshot](ctx, board, keyBase)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// Pin makes a snapshot the base.
func Pin(ctx context.Context, board Board, s Snapshot, genesis []byte) error {
	s.Genesis = genesis
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return board.Put(ctx, keyBase+".pinned", value)
}

func pointers[T any](ctx context.Context, board Board, key string) ([]T, error) {
	entries, err := board.List(ctx, key)
	var out []T
	for _, e := range entries {
		var one T
		if json.Unmarshal(e.Value, &one) == nil {
			out = append(out, one)
		}
	}
	return out, err
}

// errUnread: the store did not answer, which says nothing of the snapshot.
var errUnread = errors.New("the snapshot could not be read")

// LoadSnapshot reads a snapshot, and checks that it is what its pointer says.
func LoadSnapshot(ctx context.Context, blobs Blobs, spec *model.Spec, s Snapshot) (*model.Model, error) {
	data, err := blobs.Get(ctx, s.Object)
	if err != nil && !errors.Is(err, bus.ErrDamaged) {
		err = fmt.Errorf("%w: %w", errUnread, err)
	}
	if err != nil {
		return nil, err
	}
	m, err := model.Restore(spec, data)
	if err != nil {
		return nil, err
	}
	if got := Attest(m); !got.Comparable(s.Attestation) || !got.Same(s.Attestation) {
		return nil, fmt.Errorf("it is not the state that it is said to be: sequence %d, digest %.12s, and not %d, %.12s", got.Seq, got.Digest, s.Seq, s.Digest)
	}
	return m, nil
}

// StoreSnapshot stores an encoded state and points to it, unless its
// checkpoint has a snapshot already. What was stored is read back and
// verified before it is pointed to.
func StoreSnapshot(ctx context.Context, board Board, blobs Blobs, spec *model.Spec, a Attestation, state []byte, attested []string) (stored bool, err error) {
	s := Snapshot{Attestation: a, Object: fmt.Sprintf("%020d-%s-%s", a.Seq, a.Replica, bus.NewID()), Size: len(state), Attested: attested}
	if err := blobs.Put(ctx, s.Object, state); err != nil {
		return false, err
	}
	_, err = LoadSnapshot(ctx, blobs, spec, s)
	for attempt := 1; err != nil && attempt < 5 && sleep(ctx, 200*time.Millisecond); attempt++ {
		_, err = LoadSnapshot(ctx, blobs, spec, s) // a server that lags behind may not have it yet
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("reading it back: %w", err), blobs.Remove(ctx, s.Object))
	}
	value, err := json.Marshal(s)
	if err != nil {
		return false, err
	}
	created, err := board.Create(ctx, SnapshotKey(s.Seq), value)
	if err == nil && !created {
		err = blobs.Remove(ctx, s.Object)
	}
	return created, err
}

// RemoveSnapshot removes a snapshot: its pointer first.
func RemoveSnapshot(ctx context.Context, board Board, blobs Blobs, s Snapshot) error {
	return errors.Join(board.Remove(ctx, SnapshotKey(s.Seq)), blobs.Remove(ctx, s.Object),
		board.Remove(ctx, AttestKey(s.Seq)), board.Remove(ctx, keyAside+"."+s.Object))
}

// snapshot writes a checkpoint's snapshot, if it has one, without holding up
// the audit.
func (a *audit) snapshot(ctx context.Context, c *checkpoint) {
	if c.state == nil {
		return
	}
	state := c.state
	c.state = nil
	attested := c.agree
	rank := a.w.rank()
	a.w.side.Go(func() {
		if c.asked && !sleep(ctx, time.Duration(rank)*time.Second) { // all were asked, and one is enough
			return
		}
		if there, err := a.w.cfg.Checkpoints.List(ctx, keySnapshot); err == nil && slices.ContainsFunc(there, func(e bus.Entry) bool { return e.Key == SnapshotKey(c.Seq) }) {
			return
		}
		began := time.Now()
		stored, err := StoreSnapshot(ctx, a.w.cfg.Checkpoints, a.w.cfg.Snapshots, a.w.cfg.Spec, c.Attestation, state, attested)
		switch {
		case err != nil && ctx.Err() == nil:
			a.w.log.Warn("a snapshot could not be written", "seq", c.Seq, "error", err)
		case stored:
			a.w.log.Info("snapshot", "seq", c.Seq, "bytes", len(state), "took", time.Since(began).String())
			a.w.pruneSnapshots(ctx)
		}
	})
}

// sleep waits, and returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// pruneSnapshots keeps the newest ones, and the base.
func (w *Worker) pruneSnapshots(ctx context.Context) {
	all, err := Snapshots(ctx, w.cfg.Checkpoints)
	if err != nil {
		return
	}
	base, err := Base(ctx, w.cfg.Checkpoints)
	if err != nil {
		return
	}
	for len(all) > snapshotsKept {
		if base == nil || base.Object != all[0].Object {
			if err := RemoveSnapshot(ctx, w.cfg.Checkpoints, w.cfg.Snapshots, all[0]); err != nil {
				w.log.Warn("an old snapshot could not be removed", "object", all[0].Object, "error", err)
			}
		}
		all = all[1:]
	}
}

// restore puts the replica at a snapshot, and returns false if none helps; see
// usable.
func (w *Worker) restore(ctx context.Context, incarnation string, first, last, limit uint64) bool {
	m, s := w.usable(ctx, incarnation, first, last, limit)
	if m == nil {
		return false
	}
	w.onLog.Store(false)
	w.replica.reset(m)
	w.from.Store(s)
	w.log.Info("restored", "seq", s.Seq, "snapshot", s.Object)
	return true
}

// usable loads the newest snapshot that can be used: from sequence first on
// the log has all messages, its last is last, and none after limit will do.
func (w *Worker) usable(ctx context.Context, incarnation string, first, last, limit uint64) (*model.Model, *Snapshot) {
	all, err := Snapshots(ctx, w.cfg.Checkpoints)
	asides, asideErr := Asides(ctx, w.cfg.Checkpoints)
	base, baseErr := Base(ctx, w.cfg.Checkpoints)
	if err := errors.Join(err, asideErr, baseErr); err != nil {
		w.log.Warn("the snapshots cannot be read", "error", err)
		return nil, nil
	}
	if base != nil && !slices.ContainsFunc(all, func(s Snapshot) bool { return s.Object == base.Object }) {
		all = append([]Snapshot{*base}, all...)
	}
	sum := w.cfg.Spec.Contract()
	contract := hex.EncodeToString(sum[:])
	for _, s := range slices.Backward(all) {
		pinned := base != nil && s.Object == base.Object // a compaction has verified it
		bad := slices.ContainsFunc(asides, func(a Aside) bool { return a.Object == s.Object })
		if bad || s.Seq > limit && !pinned || s.Seq < first || s.Contract != contract || incarnation != "" && s.Incarnation != incarnation {
			continue // of another log or contract, or of no use now
		}
		reason := ""
		m := (*model.Model)(nil)
		if s.Seq > last { // the log may have grown since
			if _, now, err := w.cfg.Log.End(ctx); err == nil {
				last = now
			}
		}
		switch {
		case s.Seq > last:
			reason = fmt.Sprintf("it is of sequence %d, and the log ends at %d", s.Seq, last)
		case s.Encoding != model.Encoding:
			w.log.Info("a snapshot has another encoding", "object", s.Object, "encoding", s.Encoding)
			continue // another version's, which may use it
		default:
			m, err = LoadSnapshot(ctx, w.cfg.Snapshots, w.cfg.Spec, s)
			if errors.Is(err, errUnread) || ctx.Err() != nil {
				w.log.Warn("a snapshot cannot be read", "object", s.Object, "error", err)
				continue
			}
			if err != nil {
				reason = err.Error()
			}
		}
		if reason != "" {
			_ = w.setAside(ctx, s, reason) // whoever comes next finds out, too
			continue
		}
		return m, &s
	}
	return nil, nil
}

// setAside marks a snapshot as one that nobody should use.
func (w *Worker) setAside(ctx context.Context, s Snapshot, reason string) error {
	w.advise("snapshot", fmt.Sprintf("the snapshot %s is set aside: %s", s.Object, reason))
	value, err := json.Marshal(Aside{s.Object, s.Seq, w.cfg.Name, reason})
	if err == nil {
		err = w.cfg.Checkpoints.Put(ctx, keyAside+"."+s.Object, value)
	}
	if err != nil {
		w.log.Warn("that could not be noted", "error", err)
	}
	return err
}
