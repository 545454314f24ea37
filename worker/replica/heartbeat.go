package replica

import (
	"context"
	"fmt"
	"slices"
	"time"

	"lockstep/worker/fleet"
)

// beatEvery is the time between two heartbeats.
const beatEvery = time.Second

// heartbeat is what the replica tells the fleet now.
func (r *Replica) heartbeat() fleet.Heartbeat {
	standing := r.Standing()
	h := fleet.Heartbeat{
		Replica: r.cfg.Name, Boot: r.cfg.Boot, Version: r.cfg.Version, Lag: r.Lag(), Advisory: r.Advisory(),
		State: standing.State.String(), Fold: standing.Folds, Refolding: standing.Refolding, Votes: standing.Votes(),
	}
	r.core.heartbeat(&h)
	if a := r.attested.Load(); a != nil {
		h.Attested, h.Digest = a.Seq, a.Digest
	}
	return h
}

// beat tells the fleet of this replica, and takes in the others, until ctx
// ends.
func (r *Replica) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	put := false
	for {
		all, err := fleet.Heartbeats(ctx, r.cfg.Heartbeats)
		if putErr := fleet.PutHeartbeat(ctx, r.cfg.Heartbeats, r.heartbeat()); err == nil && putErr == nil {
			r.meet(all, put)
			put = true
		} else {
			r.peers.Store(nil) // a replica that is alone on its side of a partition must not rule
			put = false
		}
		r.retarget(ctx)
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = fleet.RemoveHeartbeat(last, r.cfg.Heartbeats, r.cfg.Name) // else it expires
			return
		case <-tick.C:
		case <-r.changed:
		}
	}
}

// meet takes in the fleet's heartbeats. put says that this replica's own was
// written before.
func (r *Replica) meet(all []fleet.Heartbeat, put bool) {
	own := r.heartbeat()
	r.members.Update(own.Replica, all, time.Now())
	r.sayShared(own, slices.ContainsFunc(all, func(h fleet.Heartbeat) bool {
		return h.Replica == own.Replica && h.Boot != own.Boot && put
	}))
	peers := fleet.Peers(all, own.Identity)
	r.peers.Store(&peers)
	// No one is further than the log: a heartbeat that says so is not believed,
	// or one value in a bucket could empty the group.
	r.events.send(fleetAt{min(fleet.Furthest(peers), own.Seq+own.Lag)})
}

// sayShared raises the advisory that another worker writes under this one's
// name, and ends it. The two write over each other's heartbeats, so the other
// one is gone only if nothing of it is seen for as long as a heartbeat lives.
func (r *Replica) sayShared(own fleet.Heartbeat, seen bool) {
	switch {
	case seen:
		r.shared = time.Now()
		r.advise("same-name", fmt.Sprintf(
			"another worker that runs has the name %s too; give each its own with --name", own.Replica))
	case time.Since(r.shared) > fleet.HeartbeatTTL:
		r.endAdvice("same-name")
	}
}

// retarget looks again where the log ends, in case it was taken back since the
// replay began.
func (r *Replica) retarget(ctx context.Context) {
	s := r.Standing()
	if s.State != fleet.Replaying || r.Applied() >= s.Target {
		return
	}
	if _, last, err := r.cfg.Log.End(ctx); err == nil && last < s.Target {
		r.events.send(logEnds{last})
	}
}

// Fleet returns the heartbeats of the live replicas whose states can be
// compared with this one's, itself included; nil while they are not known.
func (r *Replica) Fleet() []fleet.Heartbeat {
	if peers := r.peers.Load(); peers != nil {
		return *peers
	}
	return nil
}
