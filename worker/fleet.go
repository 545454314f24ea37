package worker

import (
	"context"
	"time"

	"lockstep/worker/fleet"
)

// Heartbeats.
const (
	beatEvery = time.Second
)

// heartbeat is this replica's.
func (w *Worker) heartbeat() fleet.Heartbeat {
	h := fleet.Heartbeat{
		Replica: w.cfg.Name, Boot: w.predicted.boot, State: w.State().String(), Lag: w.lag.messages(),
		Version: w.cfg.Version, Advisory: w.advisory(),
	}
	w.replica.describe(&h)
	h.Refolding, h.Fold = w.refolding.Load(), int(w.folds.Load())
	if a := w.attested.Load(); a != nil {
		h.Attested, h.Digest = a.Seq, a.Digest
	}
	h.Votes = !w.quarantined.Load() && (w.State() == fleet.Ready || w.suspended.Load())
	return h
}

// beat tells the fleet of this replica, and learns of the others, until ctx
// ends.
func (w *Worker) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	put := false
	for {
		peers, err := fleet.Heartbeats(ctx, w.cfg.Heartbeats)
		if putErr := fleet.PutHeartbeat(ctx, w.cfg.Heartbeats, w.heartbeat()); err == nil && putErr == nil {
			w.learnOf(peers, put)
			put = true
		} else {
			w.fleet.Store(nil) // whoever is alone on this side of a partition must not rule
			put = false
		}
		w.retarget(ctx)
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = fleet.RemoveHeartbeat(last, w.cfg.Heartbeats, w.cfg.Name) // else it expires
			return
		case <-tick.C:
		case <-w.changed:
		}
	}
}

// learnOf takes in the fleet's heartbeats.
func (w *Worker) learnOf(all []fleet.Heartbeat, put bool) {
	own := w.heartbeat()
	w.members.Update(own.Replica, all, time.Now())
	for _, h := range all {
		if h.Replica == own.Replica && h.Boot != own.Boot && put {
			w.advise("same-name", "another worker that runs has the name "+own.Replica+" too; give each its own with --name")
		}
	}
	peers := fleet.Peers(all, own.Identity)
	furthest := fleet.Furthest(peers)
	w.fleet.Store(&peers)
	switch {
	case w.State() == fleet.Ready && furthest > own.Seq+fleet.MaxBehind:
		w.log.Warn("too far behind the furthest replica; leaving the group", "seq", own.Seq, "furthest", furthest)
		w.lagging.Store(true)
		w.target.Store(furthest)
		w.setState(fleet.Replaying)
		w.leave()
	case w.lagging.Load(): // whoever was furthest may be gone, or be further
		w.target.Store(furthest - min(furthest, fleet.MaxBehind/10))
	case w.State() == fleet.Replaying && !w.suspended.Load(): // the log grew since this one looked, and the others with it
		near := furthest - min(furthest, fleet.MaxBehind/10)
		if target := w.target.Load(); near > target {
			w.target.CompareAndSwap(target, near)
		}
	}
}

// peers are the live replicas of the same log, contract and encoding, this
// one included; nil while that is not known.
func (w *Worker) peers() []fleet.Heartbeat {
	if peers := w.fleet.Load(); peers != nil {
		return *peers
	}
	return nil
}
