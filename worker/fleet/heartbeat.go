package fleet

import (
	"context"
	"encoding/json"
	"strings"
	"time"
)

// HeartbeatTTL is how long the fleet keeps a heartbeat: a replica that has not
// written one for as long is gone.
const HeartbeatTTL = 5 * time.Second

// maxAdvisory is how many bytes of its advisory a heartbeat carries.
const maxAdvisory = 1024

// KeyHeartbeats is the key below which heartbeats are, each under its replica's
// name.
const KeyHeartbeats = "replica"

// Heartbeat is what a replica tells the fleet every second.
type Heartbeat struct {
	Replica    string `json:"replica"`
	Boot       string `json:"boot"`  // a nonce of the process
	Fold       int    `json:"fold"`  // how often it has begun to fold again
	State      string `json:"state"` // a State's name
	Seq        uint64 `json:"seq"`
	Lag        uint64 `json:"lag"`
	LogChain   string `json:"log_chain"`
	StateChain string `json:"state_chain"`
	Identity
	Version   string `json:"version"`
	Votes     bool   `json:"votes"`     // serves, or would but for a trial
	Refolding bool   `json:"refolding"` // is on trial, and has not reached the checkpoint again
	Attested  uint64 `json:"attested"`  // the last checkpoint, 0 before any
	Digest    string `json:"digest"`    // there
	Advisory  string `json:"advisory,omitempty"`
}

// Heartbeats reads the heartbeats of a fleet, sorted by name.
func Heartbeats(ctx context.Context, kv KV) ([]Heartbeat, error) {
	return read(ctx, kv, KeyHeartbeats, checkHeartbeat)
}

// PutHeartbeat writes a replica's heartbeat; of its advisory only as much as
// every reader can hold.
func PutHeartbeat(ctx context.Context, kv KV, h Heartbeat) error {
	h.Advisory = clip(h.Advisory, maxAdvisory)
	value, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return kv.Put(ctx, KeyHeartbeats+"."+h.Replica, value)
}

// RemoveHeartbeat removes a replica that stops from the fleet. Without it the
// heartbeat expires.
func RemoveHeartbeat(ctx context.Context, kv KV, replica string) error {
	return kv.Remove(ctx, KeyHeartbeats+"."+replica)
}

// Peers returns the heartbeats of the replicas whose states can be compared
// with those of an identity.
func Peers(all []Heartbeat, own Identity) []Heartbeat {
	var out []Heartbeat
	for _, h := range all {
		if h.Differs(own) == 0 {
			out = append(out, h)
		}
	}
	return out
}

// Furthest returns the highest sequence of those that vote; 0 if none does.
func Furthest(peers []Heartbeat) (seq uint64) {
	for _, p := range peers {
		if p.Votes {
			seq = max(seq, p.Seq)
		}
	}
	return seq
}

// Rank returns how many of those that vote have a name before this one: all
// replicas agree on it, so it decides which of them does what one should do.
func Rank(peers []Heartbeat, replica string) (rank int) {
	for _, p := range peers {
		if p.Votes && p.Replica < replica {
			rank++
		}
	}
	return rank
}

// Voters returns the names of those whose attestations count.
func Voters(peers []Heartbeat) map[string]bool {
	voters := map[string]bool{}
	for _, p := range peers {
		if p.Votes {
			voters[p.Replica] = true
		}
	}
	return voters
}

// clip returns the beginning of a text, of at most so many bytes.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}
