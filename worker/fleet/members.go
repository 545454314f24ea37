package fleet

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// How long, and how many of, the replicas that left are remembered.
const (
	goneFor = 10 * time.Minute
	maxGone = 64
)

// Agreement says whether a replica folded the same as this one.
type Agreement int

// The agreements.
const (
	Unknown      Agreement = iota // its last sequence is too far from this one's to compare
	Agrees                        // equal chains at its last sequence, so all before was equal too
	OtherState                    // it read the same log and made something else of it
	OtherDigest                   // its outcomes were the same, and its state at the last checkpoint another
	OtherLog                      // it read another log
	Incomparable                  // another log's incarnation, contract or encoding: not a peer
)

// Compare reports whether a replica agrees with this one. chains returns this
// one's chains after a sequence, if it still has them.
func Compare(peer, own *Heartbeat, chains func(seq uint64) (log, state string, known bool)) Agreement {
	if peer.Differs(own.Identity) != 0 {
		return Incomparable
	}
	log, state, known := chains(peer.Seq)
	switch {
	case peer.Seq == 0 || !known:
		return Unknown
	case log != peer.LogChain:
		return OtherLog
	case state != peer.StateChain:
		return OtherState
	case peer.Attested == own.Attested && peer.Digest != own.Digest:
		return OtherDigest
	}
	return Agrees
}

// Peer is another replica as this one last heard of it.
type Peer struct {
	Heartbeat
	Heard time.Time // when it was last there
	Gone  bool      // it is not any more
	Agreement
}

// Members remembers the other replicas of a fleet, and for a while those that
// left it. Its zero value is empty; it is safe for concurrent use.
type Members struct {
	mu  sync.Mutex
	all map[string]Peer // by name; guarded by mu
}

// Update takes in who is there now. own is this replica's name.
func (m *Members) Update(own string, present []Heartbeat, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[string]Peer{}
	}
	for name, p := range m.all {
		p.Gone = true
		if m.all[name] = p; now.Sub(p.Heard) > goneFor {
			delete(m.all, name)
		}
	}
	for _, h := range present {
		if h.Replica != own {
			m.all[h.Replica] = Peer{Heartbeat: h, Heard: now}
		}
	}
	gone := slices.DeleteFunc(m.sorted(), func(p Peer) bool { return !p.Gone })
	slices.SortFunc(gone, func(a, b Peer) int { return a.Heard.Compare(b.Heard) })
	for _, p := range gone[:max(0, len(gone)-maxGone)] {
		delete(m.all, p.Replica)
	}
}

// All returns them sorted by name, without their agreements.
func (m *Members) All() []Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sorted()
}

// sorted is by name. The caller holds mu.
func (m *Members) sorted() []Peer {
	out := make([]Peer, 0, len(m.all))
	for _, p := range m.all {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Peer) int { return strings.Compare(a.Replica, b.Replica) })
	return out
}
