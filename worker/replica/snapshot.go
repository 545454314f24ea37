package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lockstep/model"
	"lockstep/worker/fleet"
)

// Limits of the snapshots.
const (
	snapshotEvery   = time.Minute
	snapshotStagger = 10 * time.Second // how much longer each next replica waits for another to write one
	snapshotsKept   = 3                // beside the one that a compaction pinned
)

// snapshot writes a checkpoint's snapshot, if it has one, without holding up
// the audit.
func (a *audit) snapshot(ctx context.Context, c *checkpoint) {
	if c.state == nil {
		return
	}
	state := c.state
	c.state = nil
	attested := c.agree
	rank := fleet.Rank(a.r.Fleet(), a.r.cfg.Name)
	a.r.side.Go(func() {
		if c.asked && !sleep(ctx, time.Duration(rank)*time.Second) { // all were asked, and one is enough
			return
		}
		if there, err := fleet.HasSnapshot(ctx, a.r.cfg.Checkpoints, c.Seq); err == nil && there {
			return
		}
		began := time.Now()
		stored, err := fleet.StoreSnapshot(
			ctx, a.r.cfg.Checkpoints, a.r.cfg.Snapshots, a.r.cfg.Spec, c.Attestation, state, attested,
		)
		switch {
		case err != nil && ctx.Err() == nil:
			a.r.log.Warn("a snapshot could not be written", "seq", c.Seq, "error", err)
		case stored:
			a.r.log.Info("snapshot", "seq", c.Seq, "bytes", len(state), "took", time.Since(began).String())
			a.r.pruneSnapshots(ctx)
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
func (r *Replica) pruneSnapshots(ctx context.Context) {
	all, err := fleet.Snapshots(ctx, r.cfg.Checkpoints)
	if err != nil {
		return
	}
	base, err := fleet.Base(ctx, r.cfg.Checkpoints)
	if err != nil {
		return
	}
	for len(all) > snapshotsKept {
		if base == nil || base.Object != all[0].Object {
			if err := fleet.RemoveSnapshot(ctx, r.cfg.Checkpoints, r.cfg.Snapshots, all[0]); err != nil {
				r.log.Warn("an old snapshot could not be removed", "object", all[0].Object, "error", err)
			}
		}
		all = all[1:]
	}
}

// restore puts the replica at a snapshot, and returns false if none helps; see
// usable.
func (r *Replica) restore(ctx context.Context, incarnation string, first, last, limit uint64) bool {
	m, s := r.usable(ctx, incarnation, first, last, limit)
	if m == nil {
		return false
	}
	r.core.reset(m)
	r.restored.Store(s)
	r.log.Info("restored", "seq", s.Seq, "snapshot", s.Object)
	return true
}

// usable loads the newest snapshot that can be used: from sequence first on
// the log has all messages, its last is last, and none after limit will do.
func (r *Replica) usable(
	ctx context.Context, incarnation string, first, last, limit uint64,
) (*model.Model, *fleet.Snapshot) {
	all, err := fleet.Snapshots(ctx, r.cfg.Checkpoints)
	asides, asideErr := fleet.RejectedSnapshots(ctx, r.cfg.Checkpoints)
	base, baseErr := fleet.Base(ctx, r.cfg.Checkpoints)
	if err := errors.Join(err, asideErr, baseErr); err != nil {
		r.log.Warn("the snapshots cannot be read", "error", err)
		return nil, nil
	}
	if base != nil && !slices.ContainsFunc(all, func(s fleet.Snapshot) bool { return s.Object == base.Object }) {
		all = append([]fleet.Snapshot{*base}, all...)
	}
	own := fleet.Identity{Incarnation: incarnation, Contract: fleet.ContractOf(r.cfg.Spec), Encoding: model.Encoding}
	for _, s := range slices.Backward(all) {
		pinned := base != nil && s.Object == base.Object // a compaction has verified it
		bad := slices.ContainsFunc(asides, func(a fleet.RejectedSnapshot) bool { return a.Object == s.Object })
		if bad || s.Seq > limit && !pinned || s.Seq < first ||
			s.Differs(own).Has(fleet.OtherContract|fleet.OtherIncarnation) {
			continue // of another log or contract, or of no use now
		}
		reason := ""
		m := (*model.Model)(nil)
		if s.Seq > last { // the log may have grown since
			if _, now, err := r.cfg.Log.End(ctx); err == nil {
				last = now
			}
		}
		switch {
		case s.Seq > last:
			reason = fmt.Sprintf("it is of sequence %d, and the log ends at %d", s.Seq, last)
		case s.Differs(own).Has(fleet.OtherEncoding):
			r.log.Info("a snapshot has another encoding", "object", s.Object, "encoding", s.Encoding)
			continue // another version's, which may use it
		default:
			m, err = fleet.LoadSnapshot(ctx, r.cfg.Snapshots, r.cfg.Spec, s)
			if errors.Is(err, fleet.ErrUnread) || ctx.Err() != nil {
				r.log.Warn("a snapshot cannot be read", "object", s.Object, "error", err)
				continue
			}
			if err != nil {
				reason = err.Error()
			}
		}
		if reason != "" {
			_ = r.setAside(ctx, s, reason) // anyone who comes next finds out, too
			continue
		}
		return m, &s
	}
	return nil, nil
}

// setAside marks a snapshot as one that no one should use.
func (r *Replica) setAside(ctx context.Context, s fleet.Snapshot, reason string) error {
	r.advise("snapshot", fmt.Sprintf("the snapshot %s is set aside: %s", s.Object, reason))
	err := fleet.RejectSnapshot(ctx, r.cfg.Checkpoints, fleet.RejectedSnapshot{
		Object: s.Object, Seq: s.Seq, Replica: r.cfg.Name, Reason: reason,
	})
	if err != nil {
		r.log.Warn("that could not be noted", "error", err)
	}
	return err
}
