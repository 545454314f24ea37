package worker

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"lockstep/model"
)

// Heartbeats.
const (
	beatEvery = time.Second
	// HeartbeatTTL is how long the fleet keeps a heartbeat.
	HeartbeatTTL = 5 * time.Second
	// maxBehind is how far a replica may fall behind the furthest live one
	// before it leaves the group: not behind the log's end, or a bulk load
	// would empty the group.
	maxBehind = 10_000
	// maxAdvisory is how many bytes of its advisory a replica tells the fleet.
	maxAdvisory = 1024
)

// Heartbeat is what a replica tells the fleet every second.
type Heartbeat struct {
	Replica     string `json:"replica"`
	Boot        string `json:"boot"` // this process's own nonce
	Fold        int    `json:"fold"` // how often it has folded anew
	State       string `json:"state"`
	Seq         uint64 `json:"seq"`
	Lag         uint64 `json:"lag"`
	LogChain    string `json:"log_chain"`
	StateChain  string `json:"state_chain"`
	Incarnation string `json:"incarnation"`
	Contract    string `json:"contract"`
	Encoding    string `json:"encoding"`
	Version     string `json:"version"`
	Votes       bool   `json:"votes"`     // serves, or would but for a trial
	Refolding   bool   `json:"refolding"` // is on trial, and has not folded to the checkpoint yet
	Attested    uint64 `json:"attested"`  // the last checkpoint, 0 before any
	Digest      string `json:"digest"`    // there
	Advisory    string `json:"advisory,omitempty"`
}

// Heartbeats reads those of a fleet, sorted by name.
func Heartbeats(ctx context.Context, board Board) ([]Heartbeat, error) {
	entries, err := board.List(ctx, keyReplica)
	var out []Heartbeat
	for _, e := range entries {
		var h Heartbeat
		if json.Unmarshal(e.Value, &h) == nil && e.Key == keyReplica+"."+h.Replica {
			out = append(out, h)
		}
	}
	return out, err
}

// heartbeat is this replica's.
func (w *Worker) heartbeat() Heartbeat {
	h := Heartbeat{Replica: w.cfg.Name, Boot: w.predicted.boot, State: w.State().String(), Lag: w.lag.Load(), Version: w.cfg.Version, Encoding: model.Encoding}
	w.replica.stand(&h)
	h.Refolding, h.Fold = w.refolding.Load(), int(w.folds.Load())
	h.Advisory = clip(w.advisory(), maxAdvisory)
	if a := w.attested.Load(); a != nil {
		h.Attested, h.Digest = a.Seq, a.Digest
	}
	h.Votes = !w.quarantined.Load() && (w.State() == Ready || w.suspended.Load())
	return h
}

// beat tells the fleet of this replica, and learns of the others, until ctx
// ends.
func (w *Worker) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	put := false
	for {
		peers, err := Heartbeats(ctx, w.cfg.Heartbeats)
		value, _ := json.Marshal(w.heartbeat()) // texts and numbers always marshal
		if putErr := w.cfg.Heartbeats.Put(ctx, keyReplica+"."+w.cfg.Name, value); err == nil && putErr == nil {
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
			_ = w.cfg.Heartbeats.Remove(last, keyReplica+"."+w.cfg.Name) // else it expires
			return
		case <-tick.C:
		case <-w.changed:
		}
	}
}

// learnOf takes in the fleet's heartbeats.
func (w *Worker) learnOf(all []Heartbeat, put bool) {
	own := w.heartbeat()
	w.roll.call(own.Replica, all, time.Now())
	var peers []Heartbeat
	furthest := uint64(0)
	for _, h := range all {
		if h.Replica == own.Replica && h.Boot != own.Boot && put {
			w.advise("same-name", "another worker that runs has the name "+own.Replica+" too; give each its own with --name")
		}
		// Who begins to fold anew has read no genesis yet, and is a peer.
		another := h.Incarnation != own.Incarnation && h.Incarnation != "" && own.Incarnation != ""
		if another || h.Contract != own.Contract || h.Encoding != own.Encoding {
			continue
		}
		peers = append(peers, h)
		if h.Votes {
			furthest = max(furthest, h.Seq)
		}
	}
	w.fleet.Store(&peers)
	switch {
	case w.State() == Ready && furthest > own.Seq+maxBehind:
		w.log.Warn("too far behind the furthest replica; leaving the group", "seq", own.Seq, "furthest", furthest)
		w.lagging.Store(true)
		w.target.Store(furthest)
		w.setState(Replaying)
		w.leave()
	case w.lagging.Load(): // whoever was furthest may be gone, or be further
		w.target.Store(furthest - min(furthest, maxBehind/10))
	}
}

// peers are the live replicas of the same log, contract and encoding, this
// one included; nil while that is not known.
func (w *Worker) peers() []Heartbeat {
	if peers := w.fleet.Load(); peers != nil {
		return *peers
	}
	return nil
}

// rank is this replica's place among those that serve, by name.
func (w *Worker) rank() int {
	rank := 0
	for _, p := range w.peers() {
		if p.Votes && p.Replica < w.cfg.Name {
			rank++
		}
	}
	return rank
}

// clip is the beginning of a text.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}
